"""The .npz files of the original Vision Transformer code, read and written again."""

import re

import jax
import numpy as np
import pytest
from golden_files import TOLERANCE, folder, golden

from vit_jax import interop
from vit_jax.errors import UserError
from vit_jax.interop import google, layer_names, rules, writers
from vit_jax.models import PureModel, vit

D, H, K, F, P, T, L, CLASSES = 12, 3, 4, 20, 4, 9, 11, 5  # more than 10 blocks, which sort by number and not by letter


def _crafted(**changed):
  """Tensors with the names and shapes of the published files and random values."""
  block = {
      'LayerNorm_0/scale': (D,), 'LayerNorm_0/bias': (D,), 'LayerNorm_2/scale': (D,), 'LayerNorm_2/bias': (D,),
      **{f'MultiHeadDotProductAttention_1/{name}/kernel': (D, H, K) for name in ('query', 'key', 'value')},
      **{f'MultiHeadDotProductAttention_1/{name}/bias': (H, K) for name in ('query', 'key', 'value')},
      'MultiHeadDotProductAttention_1/out/kernel': (H, K, D), 'MultiHeadDotProductAttention_1/out/bias': (D,),
      'MlpBlock_3/Dense_0/kernel': (D, F), 'MlpBlock_3/Dense_0/bias': (F,),
      'MlpBlock_3/Dense_1/kernel': (F, D), 'MlpBlock_3/Dense_1/bias': (D,)}
  shapes = {f'Transformer/encoderblock_{i}/{name}': shape for i in range(L) for name, shape in block.items()} | {
      'embedding/kernel': (P, P, 3, D), 'embedding/bias': (D,), 'cls': (1, 1, D),
      'Transformer/posembed_input/pos_embedding': (1, 1 + T, D), 'Transformer/encoder_norm/scale': (D,),
      'Transformer/encoder_norm/bias': (D,), 'head/kernel': (D, CLASSES), 'head/bias': (CLASSES,)} | changed
  rng = np.random.default_rng(0)
  return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items() if shape is not None}


def test_a_crafted_file_survives_the_round_trip(tmp_path):
  theirs = _crafted()
  np.savez(tmp_path / 'theirs.npz', **theirs)
  weights = interop.read(tmp_path / 'theirs.npz')
  assert (weights.config.depth, weights.config.num_heads, weights.image_shape) == (L, H, (12, 12, 3))
  qkv = weights.params['encoder']['blocks']['attention']['qkv']['kernel']
  key = theirs['Transformer/encoderblock_10/MultiHeadDotProductAttention_1/key/kernel']
  np.testing.assert_array_equal(qkv[10, :, :, 1], key)
  assert weights.config.gelu == 'tanh' and weights.preprocessing.squeeze

  writers.write(weights, tmp_path / 'ours.npz', 'npz')
  again = interop.read(tmp_path / 'ours.npz')
  bits = lambda tree: jax.tree.map(lambda a: (a.shape, a.tobytes()), tree)
  assert bits(again.params) == bits(weights.params) and again.config == weights.config
  with np.load(tmp_path / 'ours.npz') as ours:
    assert sorted(ours) == sorted(theirs)
    for name, value in theirs.items():
      if name not in ('cls', 'Transformer/posembed_input/pos_embedding'):  # CLS is written with its position added
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    total = lambda file: file['cls'][0, 0] + file['Transformer/posembed_input/pos_embedding'][0, 0]
    np.testing.assert_array_equal(total(ours), total(theirs))


@pytest.mark.parametrize('norm', [lambda c: (c,), lambda c: (1, 1, 1, c)], ids=['flat', 'older'])
def test_a_hybrid_survives_the_round_trip(tmp_path, norm):
  """A hybrid with a ResNet of three stages (R50+B/16 has 3, 4, 9 units) and 32 channels at its root."""
  shapes, channels = {'conv_root/kernel': (7, 7, 3, 32), 'gn_root/scale': norm(32), 'gn_root/bias': norm(32)}, 32
  for stage, depth in enumerate((1, 2, 1)):
    inner, wide = 32 << stage, 128 << stage
    for unit in range(depth):
      sizes = {'conv1': (1, 1, channels, inner), 'conv2': (3, 3, inner, inner), 'conv3': (1, 1, inner, wide)}
      if not unit:
        sizes['conv_proj'] = (1, 1, channels, wide)
      for conv, size in sizes.items():
        place, its_norm = f'block{stage + 1}/unit{unit + 1}', conv.replace('conv', 'gn')
        shapes |= {f'{place}/{conv}/kernel': size, f'{place}/{its_norm}/scale': norm(size[3]),
                   f'{place}/{its_norm}/bias': norm(size[3])}
      channels = wide
  theirs = _crafted(**shapes, **{'embedding/kernel': (1, 1, channels, D)})
  np.savez(tmp_path / 'theirs.npz', **theirs)
  weights = interop.read(tmp_path / 'theirs.npz')
  assert (weights.config.stem, weights.config.stem_depths, weights.config.stem_width) == ('resnet', (1, 2, 1), 32)
  assert weights.config.patch_size == 16 and weights.image_shape == (48, 48, 3)
  np.testing.assert_array_equal(weights.params['patch_embed']['blocks'][2]['convs'][1]['conv']['kernel'],
                                theirs['block2/unit2/conv2/kernel'])
  writers.write(weights, tmp_path / 'ours.npz', 'npz')
  with np.load(tmp_path / 'ours.npz') as ours:
    assert sorted(ours) == sorted(theirs)
    for name in shapes:
      np.testing.assert_array_equal(ours[name], theirs[name].reshape(ours[name].shape), err_msg=name)
  writers.write(weights, tmp_path / 'bundle', 'bundle')
  bits = lambda tree: jax.tree.map(lambda a: (a.shape, a.tobytes()), tree)
  assert bits(interop.read(tmp_path / 'bundle').params) == bits(weights.params)


def test_it_computes_the_same_as_transformers(tmp_path):
  """The format assumes square pictures. A model for others is written, but cannot be read back."""
  there, weights = golden('vit_gelu_tanh'), interop.read(folder('vit_gelu_tanh', tmp_path / 'hf'))
  with pytest.raises(UserError, match='expected a square number'):
    writers.write(weights, tmp_path / 'ours.npz', 'npz')
    interop.read(tmp_path / 'ours.npz')
  model = weights.pure_model()
  logits = model.apply(weights.params, {}, there.images.transpose(0, 2, 3, 1))[0]
  assert np.abs(np.asarray(logits) - there.logits).max() <= TOLERANCE


def test_a_backbone_without_a_head(tmp_path):
  np.savez(tmp_path / 'a.npz', **_crafted(**{'head/kernel': None, 'head/bias': None}))
  weights = interop.read(tmp_path / 'a.npz')
  assert weights.headless and weights.num_classes is None
  with pytest.raises(UserError, match='got a backbone without a head'):
    weights.pure_model()
  writers.write(weights, tmp_path / 'bundle', 'bundle')
  assert interop.read(tmp_path / 'bundle').headless


@pytest.mark.parametrize('changed, message', [
    ({'conv_root/kernel': (7, 7, 3, 64)}, 'expected a hybrid of ResNet stages'),
    ({'embedding/kernel': None}, 'expected the tensors of a ViT'),
    ({'embedding/kernel': (D,)}, 'expected the tensors of a ViT'),
    ({'pre_logits/kernel': (D, D)}, '1 tensor not used by this model: pre_logits/kernel'),
    ({'Transformer/posembed_input/pos_embedding': (1, 9, D)}, 'expected a square number of patch positions, got 8'),
    ({'Transformer/encoderblock_3/LayerNorm_0/scale': (D - 1,)}, 'of another shape'),
])
def test_tensors_that_do_not_fit(tmp_path, changed, message):
  np.savez(tmp_path / 'a.npz', **_crafted(**changed))
  with pytest.raises(UserError, match=message):
    interop.read(tmp_path / 'a.npz')


def _in_big_vision(arrays, scanned, prefix):
  """The arrays of a plain ViT of the original code as big_vision saves them."""
  renames = (('Transformer/posembed_input/pos_embedding', 'pos_embedding'), ('MlpBlock_3', 'MlpBlock_0'),
             ('MultiHeadDotProductAttention_1', 'MultiHeadDotProductAttention_0'), ('LayerNorm_2', 'LayerNorm_1'))
  out, blocks = {}, {}
  for name, value in arrays.items():
    for old, new in renames:
      name = name.replace(old, new)
    if scanned and (match := re.match(r'Transformer/encoderblock_(\d+)/(.*)', name)):
      blocks.setdefault(match[2], {})[int(match[1])] = value
    else:
      out[name] = value
  out |= {f'Transformer/encoderblock/{name}': np.stack([each[i] for i in sorted(each)])
          for name, each in blocks.items()}
  return {f'{prefix}{name}': value for name, value in out.items()}


@pytest.mark.parametrize('scanned', [False, True])
@pytest.mark.parametrize('prefix', ['', 'params/', 'params/img/'])
@pytest.mark.parametrize('pool', ['cls', 'gap', 'map'])
def test_the_layouts_of_big_vision(tmp_path, scanned, prefix, pool):
  """The class token has no position of its own there."""
  model = PureModel('vit', vit.Config(patch_size=4, width=16, depth=2, mlp_dim=32, num_heads=2, pool=pool, gelu='tanh'),
                    (16, 16, 3), 5)
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape).astype(np.float32), model.param_shapes())
  flat = layer_names.flat(params)
  bound = rules.bind(google._rules(model.config, placed=0), {name: value.shape for name, value in flat.items()})
  original = rules.write(bound, flat, {'P': 4, 'Q': 4, 'C': 3})
  extra = {'opt/0/mu': np.zeros(3), 'params/txt/head/bias': np.zeros(3)} if prefix == 'params/img/' else (
      {'opt/0/mu': np.zeros(3)} if prefix else {})
  np.savez(tmp_path / 'weights.npz', **_in_big_vision(original, scanned, prefix), **extra)
  found = interop.read(tmp_path / 'weights.npz')
  assert found.config == model.config and found.image_shape == (16, 16, 3)
  jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_computed_positions_of_big_vision_are_refused_in_words(tmp_path):
  path = tmp_path / 'weights.npz'
  query = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel'
  np.savez(path, **{'embedding/kernel': np.zeros((4, 4, 3, 8)), query: np.zeros((8, 2, 4)),
                    'Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel': np.zeros((8, 16))})
  with pytest.raises(UserError, match='pos_embedding is missing.*no tensor shows the size of their pictures'):
    interop.read(path)
