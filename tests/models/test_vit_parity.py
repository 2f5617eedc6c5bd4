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

from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, vit

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
CASES = ['qkv_bias', 'no_qkv_bias', 'gelu_tanh']
GELU = {'gelu': 'exact', 'gelu_pytorch_tanh': 'tanh'}
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


def our_model(theirs: dict, execution: Execution = Execution(), **changes) -> PureModel:
  """The model of ours that transformers' ViTConfig arguments describe, with some fields of ours changed."""
  config = vit.Config(
      patch_size=theirs['patch_size'], width=theirs['hidden_size'], depth=theirs['num_hidden_layers'],
      mlp_dim=theirs['intermediate_size'], num_heads=theirs['num_attention_heads'], qkv_bias=theirs['qkv_bias'],
      gelu=GELU[theirs['hidden_act']])
  image_shape = (*theirs['image_size'], theirs['num_channels'])
  return PureModel('vit', dataclasses.replace(config, **changes), image_shape, theirs['num_labels'], execution)


def our_params(tensors: dict[str, np.ndarray], theirs: dict) -> dict:
  """Our parameter tree from transformers' tensors (names of transformers 5.23), each of which must be used.

  Ours differs in: Linear kernels are transposed; q, k and v are one kernel [D, H, 3, K]; layers are stacked in front;
  patches are flat in (row, column, channel) order; CLS has no position embedding of its own, so theirs is added to it.
  """
  left, heads = dict(tensors), theirs['num_attention_heads']

  def dense(name):
    bias = {'bias': left.pop(f'{name}.bias')} if f'{name}.bias' in left else {}
    return {'kernel': left.pop(f'{name}.weight').T, **bias}

  def norm(name):
    return {'scale': left.pop(f'{name}.weight'), 'bias': left.pop(f'{name}.bias')}

  def attention(name):
    q_k_v = [dense(f'{name}.{letter}_proj') for letter in 'qkv']
    qkv = jax.tree.map(lambda *parts: np.stack([x.reshape(*x.shape[:-1], heads, -1) for x in parts], axis=-2), *q_k_v)
    out = dense(f'{name}.o_proj')
    return {'qkv': qkv,
            'out': dict(out, kernel=out['kernel'].reshape(heads, -1, out['kernel'].shape[-1]))}

  def block(name):
    return {'norm1': norm(f'{name}.layernorm_before'), 'attention': attention(f'{name}.attention'),
            'norm2': norm(f'{name}.layernorm_after'),
            'mlp': {'up': dense(f'{name}.mlp.fc1'), 'down': dense(f'{name}.mlp.fc2')}}

  blocks = [block(f'vit.layers.{i}') for i in range(theirs['num_hidden_layers'])]
  position = left.pop('vit.embeddings.position_embeddings')[0]
  patch = 'vit.embeddings.patch_embeddings.projection'
  kernel = left.pop(f'{patch}.weight').transpose(2, 3, 1, 0)  # [D, C, p, p] -> [p, p, C, D]
  params = {
      'patch_embed': {'proj': {'kernel': kernel.reshape(-1, kernel.shape[-1]), 'bias': left.pop(f'{patch}.bias')}},
      'pos_embed': position[1:],
      'cls': left.pop('vit.embeddings.cls_token')[0, 0] + position[0],
      'encoder': {'blocks': jax.tree.map(lambda *layers: np.stack(layers), *blocks)},
      'norm': norm('vit.layernorm'),
      'head': dense('classifier'),
  }
  assert not left, f'tensors that nothing of ours uses: {sorted(left)}'
  return params


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
  assert sorted(path.stem for path in GOLDEN.glob('vit_*.npz')) == sorted(f'vit_{case}' for case in CASES)


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('case', CASES)
def test_golden_logits(case, scan):
  config, tensors, images, logits = golden(case)
  model, params = our_model(config, Execution(scan=scan)), our_params(tensors, config)
  assert_fills(params, model)
  ours, _ = forward(model)(params, images)
  assert_close(ours, logits, f'{case}, scan={scan}')


@pytest.mark.parametrize('case', CASES)
def test_golden_logits_depend_on_every_parameter(case):
  """The test above can fail: values one place out of order in any tensor of any layer move the logits.

  But for the keys' bias: it adds the same to all logits of a query, which softmax ignores.
  """
  config, tensors, images, logits = golden(case)
  assert logits.std(axis=0).max() > 0.1 and logits.std(axis=1).min() > 0.3  # over pictures, over classes
  run = forward(our_model(config))
  for name, tensor in tensors.items():
    shifted = np.roll(tensor, 1, axis=1 if name.endswith('position_embeddings') else -1)
    ours, _ = run(our_params(dict(tensors, **{name: shifted}), config), images)
    difference = np.abs(np.asarray(ours) - logits).max()
    print(f'{case}, {name} shifted: {difference:.2e}')
    assert (difference <= TOLERANCE) == name.endswith('k_proj.bias'), f'{name} shifted: {difference:.2e}'


@pytest.mark.parametrize('case', CASES)
def test_golden_logits_tell_the_gelus_apart(case):
  config, tensors, images, logits = golden(case)
  other = {'exact': 'tanh', 'tanh': 'exact'}[GELU[config['hidden_act']]]
  ours, _ = forward(our_model(config, gelu=other))(our_params(tensors, config), images)
  difference = np.abs(np.asarray(ours) - logits).max()
  print(f'{case}, with our {other} GELU: {difference:.2e}')
  assert difference > TOLERANCE


@pytest.fixture(scope='module')
def script():
  """make_golden.py's functions, where what it needs is installed."""
  reason = 'live parity needs torch and transformers: see tests/golden/make_golden.py'
  pytest.importorskip('torch', reason=reason)
  pytest.importorskip('transformers', minversion='5.23.0', reason=reason)  # whose names `our_params` knows
  return types.SimpleNamespace(**runpy.run_path(str(GOLDEN / 'make_golden.py')))


@pytest.mark.parametrize('scan', [True, False])
@pytest.mark.parametrize('shape', LIVE_SHAPES)
def test_live_outputs(script, shape, scan):
  """Logits, the attention weights and residual stream of every block, and what the head is given."""
  config = LIVE_SHAPES[shape]
  theirs, images = script.random_model(config, seed=1), script.random_images(config, 3, seed=1)
  model, params = our_model(config, Execution(scan=scan)), our_params(script.parameters(theirs), config)
  assert_fills(params, model)
  logits, intermediates = forward(model, ('attention', 'features'))(params, images)
  for name, expected in script.outputs(theirs, images).items():
    assert_close({'logits': logits, **intermediates}[name], expected, f'{shape}, scan={scan}, {name}')


def test_live_attention_is_not_uniform(script):
  """Else equal attention weights would say little about the order of heads, queries and keys."""
  config = LIVE_SHAPES['six_heads_deep']
  weights = script.outputs(script.random_model(config, seed=1), script.random_images(config, 3, seed=1))['attention']
  for axis in range(weights.ndim):  # layers, pictures, heads, queries, keys
    assert weights.std(axis=axis).max() > 0.01


@pytest.mark.parametrize('epsilon', [1e-5, 1e-12])
def test_live_epsilon_shows(script, epsilon):
  """Their norms with another epsilon than our 1e-6 give other logits than ours: 1e-12 is transformers' default."""
  config = script.CASES['qkv_bias']
  theirs = script.random_model(dict(config, layer_norm_eps=epsilon), seed=1)
  images = script.random_images(config, 2, seed=1)
  ours, _ = forward(our_model(config))(our_params(script.parameters(theirs), config), images)
  difference = np.abs(np.asarray(ours) - script.outputs(theirs, images)['logits']).max()
  print(f'epsilon {epsilon} against our 1e-6: {difference:.2e}')
  assert difference > TOLERANCE


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
