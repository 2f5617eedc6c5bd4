"""Our CNNs, DeiT and Swin compute what transformers' classes compute from the same parameters and statistics.

Always: from the files that tests/golden/make_families_golden.py wrote. Live, with fresh random models of other shapes:
where torch and transformers are installed.
"""

import functools
import json
import pathlib
import runpy
import types

import jax
import numpy as np
import pytest
from flax import traverse_util

from vit_jax.interop import huggingface
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
CASES = ['resnet-basic', 'resnet-bottleneck', 'resnet-regnet_y', 'convnext-two_stages', 'deit-tall', 'swin-padded',
         'swin-one_window']
TOLERANCE = 1e-4  # largest absolute difference, of values of about 1, in float32

LIVE = {
    'resnet-bottleneck': ('ResNet', dict(num_channels=1, num_labels=5, layer_type='bottleneck', embedding_size=16,
                                         hidden_sizes=[32, 48, 64, 96], depths=[1, 2, 3, 1]), (64, 64)),
    'resnet-regnet_y': ('RegNet', dict(num_channels=3, num_labels=5, layer_type='y', embedding_size=16,
                                       hidden_sizes=[24, 40, 64], depths=[2, 1, 3], groups_width=8), (64, 48)),
    'convnext-three': ('ConvNext', dict(num_channels=1, num_labels=5, hidden_sizes=[16, 24, 48], depths=[1, 2, 2],
                                        num_stages=3, patch_size=2, layer_scale_init_value=0.1, layer_norm_eps=1e-6),
                       (32, 32)),
    'swin-four': ('Swin', dict(num_channels=3, num_labels=5, image_size=[104, 130], embed_dim=16, depths=[2, 2, 4, 2],
                               num_heads=[2, 4, 4, 8], window_size=3, patch_size=4), (104, 130)),
}


def imported(case: str, theirs: dict, tensors: dict, size: tuple[int, int]) -> Weights:
  """What `interop` makes of transformers' tensors; every one is used."""
  kind = 'regnet' if case.endswith('regnet_y') else case.partition('-')[0]
  file = Tensors(case, {name: value.shape for name, value in tensors.items()}, frozenset(), tensors.__getitem__)
  return huggingface.read(file, theirs | {'model_type': kind, 'image_size': list(size)}, None)


def model_of(weights: Weights, execution: Execution = Execution()) -> PureModel:
  return PureModel(weights.family, weights.config, weights.image_shape, weights.num_classes, execution)


def assert_fills(tree: dict, shapes: dict) -> None:
  """Every leaf of ours, and no other, with its shape and type."""
  signature = lambda tree: {path: (leaf.shape, np.dtype(leaf.dtype))
                            for path, leaf in traverse_util.flatten_dict(tree).items()}
  assert signature(tree) == signature(shapes)


def forward(model: PureModel):
  """A compiled (params, stats, images [B, C, H, W]) -> logits."""
  return jax.jit(lambda params, stats, images: model.apply(params, stats, images.transpose(0, 2, 3, 1))[0])


@functools.cache
def golden(case: str) -> tuple[dict, dict, np.ndarray, np.ndarray]:
  """(arguments of the config, tensors by name, images [B, C, H, W], logits [B, classes])."""
  with np.load(GOLDEN / f'{case}.npz', allow_pickle=False) as file:
    arrays = dict(file)
  config, images, logits = json.loads(str(arrays.pop('config'))), arrays.pop('images'), arrays.pop('logits')
  return config, {name.removeprefix('param:'): value for name, value in arrays.items()}, images, logits


def _check(case, theirs, tensors, images, logits, scan):
  weights = imported(case, theirs, tensors, images.shape[2:])
  model = model_of(weights, Execution(scan=scan))
  assert_fills(weights.params, model.param_shapes())
  assert_fills(weights.stats, model.stats_shapes())
  ours = np.asarray(forward(model)(weights.params, weights.stats, images))
  assert ours.shape == logits.shape and ours.dtype == logits.dtype == np.float32
  assert logits.std(axis=0).max() > 0.1 and logits.std(axis=1).min() > 0.3  # over pictures, over classes
  difference = np.abs(ours - logits).max()
  print(f'{case}, scan={scan}: max abs difference {difference:.2e}')
  assert difference <= TOLERANCE


def test_every_golden_file_is_tested():
  assert sorted(path.stem for path in GOLDEN.glob('*-*.npz')) == sorted(CASES)


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_golden_logits(case, scan):
  theirs, tensors, images, logits = golden(case)
  _check(case, theirs, tensors, images, logits, scan)


@pytest.mark.parametrize('case', CASES)
def test_golden_logits_depend_on_every_parameter_and_statistic(case):
  """The test above can fail: values one place out of order in any tensor of any block move the logits.

  But for the keys' bias: it adds the same to all logits of a query, which softmax ignores.
  """
  theirs, tensors, images, logits = golden(case)
  run = forward(model_of(imported(case, theirs, tensors, images.shape[2:])))
  for name, tensor in tensors.items():
    axis = 0 if tensor.ndim == 4 and tensor.shape[-1] == 1 else -1  # 1 x 1 kernels: by output channel
    changed = dict(tensors, **{name: np.roll(tensor, 1, axis=axis)})
    weights = imported(case, theirs, changed, images.shape[2:])
    ours = run(weights.params, weights.stats, images)
    difference = np.abs(np.asarray(ours) - logits).max()
    assert (difference <= TOLERANCE) == name.endswith('k_proj.bias'), f'{name} shifted: {difference:.2e}'


@pytest.fixture(scope='module')
def script():
  """make_families_golden.py's functions, where what it needs is installed."""
  reason = 'live parity needs torch and transformers: see tests/golden/make_families_golden.py'
  pytest.importorskip('torch', reason=reason)
  pytest.importorskip('transformers', minversion='5.23.0', reason=reason)  # whose names `interop` knows
  return types.SimpleNamespace(**runpy.run_path(str(GOLDEN / 'make_families_golden.py')))


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('case', LIVE)
def test_live_logits(script, case, scan):
  kind, theirs, size = LIVE[case]
  model, images = script.random_model(kind, theirs, seed=1), script.random_images(theirs, size, 2, seed=1)
  _check(case, theirs, script.tensors(model), images, script.logits(model, images), scan)
