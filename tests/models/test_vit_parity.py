"""Our ViT computes what Hugging Face transformers' ViTForImageClassification computes from the same parameters.

Always: from the files that tests/golden/make_golden.py wrote. Live, with fresh random models of other shapes, and
inside the network too: where torch and transformers are installed.
"""

import dataclasses
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
CASES = ['qkv_bias', 'no_qkv_bias', 'gelu_tanh']
TOLERANCE = 1e-4  # largest absolute difference, of values of about 1, in float32

LIVE_SHAPES = {
    'three_blocks_grey': dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40,
                              image_size=(16, 16), patch_size=8, num_channels=1, num_labels=5, layer_norm_eps=1e-6,
                              hidden_act='gelu', qkv_bias=True),
    'one_head_tall': dict(hidden_size=20, num_hidden_layers=1, num_attention_heads=1, intermediate_size=80,
                          image_size=(20, 6), patch_size=2, num_channels=3, num_labels=2, layer_norm_eps=1e-6,
                          hidden_act='gelu_pytorch_tanh', qkv_bias=False),
    'six_heads_deep': dict(hidden_size=96, num_hidden_layers=5, num_attention_heads=6, intermediate_size=384,
                           image_size=(32, 48), patch_size=8, num_channels=3, num_labels=100, layer_norm_eps=1e-6,
                           hidden_act='gelu', qkv_bias=True),
}


def imported(theirs: dict, tensors: dict[str, np.ndarray]) -> Weights:
  """What `interop` makes of transformers' tensors; every one is used."""
  file = Tensors('theirs', {name: value.shape for name, value in tensors.items()}, frozenset(), tensors.__getitem__)
  return huggingface.read(file, theirs | {'model_type': 'vit'}, None)


def model_of(weights: Weights, execution: Execution = Execution(), **changes) -> PureModel:
  """Its model, some fields of the config changed."""
  config = dataclasses.replace(weights.config, **changes)
  return PureModel('vit', config, weights.image_shape, weights.num_classes, execution)


def assert_fills(params: dict, model: PureModel) -> None:
  """Every leaf of ours, and no other, with its shape and type."""
  signature = lambda tree: {path: (leaf.shape, np.dtype(leaf.dtype))
                            for path, leaf in traverse_util.flatten_dict(tree).items()}
  assert signature(params) == signature(model.param_shapes())


def assert_close(ours: jax.Array, theirs: np.ndarray, what: str) -> None:
  """Within TOLERANCE; prints the difference (pytest -rP shows it)."""
  assert ours.shape == theirs.shape and np.dtype(ours.dtype) == theirs.dtype == np.float32
  difference = np.abs(np.asarray(ours) - theirs).max()
  print(f'{what}: max abs difference {difference:.2e}')
  assert difference <= TOLERANCE, f'{what}: max abs difference {difference:.2e}'


def forward(model: PureModel, capture: tuple[str, ...] = ()):
  """A compiled (params, images [B, C, H, W]) -> (logits, intermediates)."""
  return jax.jit(lambda params, images: model.apply(params, {}, images.transpose(0, 2, 3, 1), capture=capture)[:2])


@functools.cache
def golden(case: str) -> tuple[dict, dict, np.ndarray, np.ndarray]:
  """(ViTConfig arguments, tensors by name, images [B, C, H, W], logits [B, classes])."""
  with np.load(GOLDEN / f'vit_{case}.npz', allow_pickle=False) as file:
    arrays = dict(file)
  config, images, logits = json.loads(str(arrays.pop('config'))), arrays.pop('images'), arrays.pop('logits')
  return config, {name.removeprefix('param:'): value for name, value in arrays.items()}, images, logits


def test_every_golden_file_is_tested():
  tested = {'vit_hybrid', *(f'vit_{case}' for case in CASES)}  # the hybrid: test_hybrid_parity.py
  assert {path.stem for path in GOLDEN.glob('vit_*.npz')} == tested


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_golden_logits(case, scan):
  config, tensors, images, logits = golden(case)
  weights = imported(config, tensors)
  model = model_of(weights, Execution(scan=scan))
  assert_fills(weights.params, model)
  ours, _ = forward(model)(weights.params, images)
  assert_close(ours, logits, f'{case}, scan={scan}')


@pytest.mark.parametrize('case', CASES)
def test_golden_logits_depend_on_every_parameter(case):
  """The test above can fail: values one place out of order in any tensor of any layer move the logits.

  But for the keys' bias: it adds the same to all logits of a query, which softmax ignores.
  """
  config, tensors, images, logits = golden(case)
  assert logits.std(axis=0).max() > 0.1 and logits.std(axis=1).min() > 0.3  # over pictures, over classes
  run = forward(model_of(imported(config, tensors)))
  for name, tensor in tensors.items():
    shifted = np.roll(tensor, 1, axis=1 if name.endswith('position_embeddings') else -1)
    ours, _ = run(imported(config, tensors | {name: shifted}).params, images)
    difference = np.abs(np.asarray(ours) - logits).max()
    print(f'{case}, {name} shifted: {difference:.2e}')
    assert (difference <= TOLERANCE) == name.endswith('k_proj.bias'), f'{name} shifted: {difference:.2e}'


@pytest.mark.parametrize('case', CASES)
def test_golden_logits_tell_the_gelus_apart(case):
  config, tensors, images, logits = golden(case)
  weights = imported(config, tensors)
  other = {'exact': 'tanh', 'tanh': 'exact'}[weights.config.gelu]
  ours, _ = forward(model_of(weights, gelu=other))(weights.params, images)
  difference = np.abs(np.asarray(ours) - logits).max()
  print(f'{case}, with our {other} GELU: {difference:.2e}')
  assert difference > TOLERANCE


@pytest.fixture(scope='module')
def script():
  """make_golden.py's functions, where what it needs is installed."""
  reason = 'live parity needs torch and transformers: see tests/golden/make_golden.py'
  pytest.importorskip('torch', reason=reason)
  pytest.importorskip('transformers', minversion='5.23.0', reason=reason)  # whose names `interop` knows
  return types.SimpleNamespace(**runpy.run_path(str(GOLDEN / 'make_golden.py')))


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('shape', LIVE_SHAPES)
def test_live_outputs(script, shape, scan):
  """Logits, the attention weights and residual stream of every block, and what the head is given."""
  config = LIVE_SHAPES[shape]
  theirs, images = script.random_model(config, seed=1), script.random_images(config, 3, seed=1)
  weights = imported(config, script.parameters(theirs))
  model = model_of(weights, Execution(scan=scan))
  assert_fills(weights.params, model)
  logits, intermediates = forward(model, ('attention', 'features'))(weights.params, images)
  for name, expected in script.outputs(theirs, images).items():
    assert_close({'logits': logits, **intermediates}[name], expected, f'{shape}, scan={scan}, {name}')


def test_live_attention_is_not_uniform(script):
  """Else equal attention weights would say little about the order of heads, queries and keys."""
  config = LIVE_SHAPES['six_heads_deep']
  weights = script.outputs(script.random_model(config, seed=1), script.random_images(config, 3, seed=1))['attention']
  for axis in range(weights.ndim):  # layers, pictures, heads, queries, keys
    assert weights.std(axis=axis).max() > 0.01


@pytest.mark.parametrize('epsilon', [1e-5, 1e-12])
def test_live_epsilon(script, epsilon):
  """Norms take the epsilon that theirs have, and one of 1e-6 would show: 1e-12 is transformers' default."""
  config = script.CASES['qkv_bias']
  theirs = script.random_model(dict(config, layer_norm_eps=epsilon), seed=1)
  images = script.random_images(config, 2, seed=1)
  weights = imported(dict(config, layer_norm_eps=epsilon), script.parameters(theirs))
  expected = script.outputs(theirs, images)['logits']
  assert_close(forward(model_of(weights))(weights.params, images)[0], expected, f'epsilon {epsilon}')
  other, _ = forward(model_of(weights, epsilon=1e-6))(weights.params, images)
  assert np.abs(np.asarray(other) - expected).max() > TOLERANCE


def test_golden_files_are_what_the_script_writes(script):
  """Same parameters and images from the seed; logits to the last bits that another processor may change."""
  for case in CASES:
    config, tensors, images, logits = golden(case)
    fresh = script.case_arrays(case)
    assert config == json.loads(str(fresh['config']))
    np.testing.assert_array_equal(images, fresh['images'])
    for name, value in tensors.items():
      np.testing.assert_array_equal(value, fresh[f'param:{name}'])
    np.testing.assert_allclose(logits, fresh['logits'], rtol=0, atol=1e-5)
