"""Published sizes of the families, bfloat16, and what is special about each; what all share is in test_conformance."""

import in_turn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.cost import flops
from vit_jax.errors import UserError
from vit_jax.layers.stack import Execution
from vit_jax.models import FAMILIES, PureModel, convnext, deit, resnet, swin, vit

SHAPE = (18, 23, 3)  # no stride, patch or window divides it
TINY = {
    'vit': ('vit', dict(stem='conv', patch_size=4, width=16, depth=2, mlp_dim=32, num_heads=2)),
    'vit-hybrid': ('vit', dict(stem='resnet', stem_depths=(2, 1), stem_width=8, patch_size=8, width=16, depth=2,
                               mlp_dim=32, num_heads=2)),
    'vit-local': ('vit', dict(stem='conv', patch_size=4, width=32, depth=2, mlp_dim=64, num_heads=2, global_tokens=2,
                              attention='local', attention_radius=1)),
    'deit': ('deit', dict(stem='conv', patch_size=4, width=16, depth=2, mlp_dim=32, num_heads=2, drop_path=0.1)),
    'swin': ('swin', dict(width=16, depths=(2, 4), num_heads=(2, 4), window_size=3, patch_size=2, drop_path=0.1)),
    'resnet-basic': ('resnet', dict(block='basic', depths=(1, 2), widths=(8, 16), stem_width=8)),
    'resnet-bottleneck': ('resnet', dict(depths=(3, 1), widths=(16, 32), stem='full', stem_width=8)),
    'regnet_y': ('resnet', dict(depths=(1, 3), widths=(16, 24), stem='half', stem_width=8, bottleneck=1, group_width=8,
                                squeeze_excite=True)),
    'convnext': ('convnext', dict(depths=(2, 3), widths=(8, 16), patch_size=4, drop_path=0.1)),
}

# Millions of parameters and billions of multiply-adds at 224 x 224. He et al. 2016 gives the multiply-adds of v1 (3.8
# for 50 layers), so those of v1.5 and all parameters of ResNets are torchvision's; Radosavovic et al. 2020, fig. 16 and
# the published code's model zoo; Liu et al. 2022, table 9; Liu et al. 2021, table 1, and its code's for L;
# timm's for DeiT with its distillation token and for hybrids.
PUBLISHED = {
    'resnet': {'ResNet-18': (11.69, 1.81), 'ResNet-34': (21.80, 3.66), 'ResNet-50': (25.56, 4.09),
               'ResNet-101': (44.55, 7.80), 'ResNet-152': (60.19, 11.51),
               'RegNetY-200MF': (3.2, 0.2), 'RegNetY-400MF': (4.3, 0.4), 'RegNetY-600MF': (6.1, 0.6),
               'RegNetY-800MF': (6.3, 0.8), 'RegNetY-1.6GF': (11.2, 1.6), 'RegNetY-3.2GF': (19.4, 3.2),
               'RegNetY-4GF': (20.6, 4.0), 'RegNetY-6.4GF': (30.6, 6.4), 'RegNetY-8GF': (39.2, 8.0),
               'RegNetY-12GF': (51.8, 12.1), 'RegNetY-16GF': (83.6, 15.9)},
    'convnext': {'T': (28.6, 4.5), 'S': (50.2, 8.7), 'B': (88.6, 15.4)},
    'vit': {'R26+S/32': (36.43, 3.54), 'R50+L/32': (328.99, 19.45), 'R50+B/16': (98.66, 21.66)},
    'deit': {'Ti/16': (5.91, 1.27), 'S/16': (22.44, 4.63), 'B/16': (87.34, 17.68)},
    'swin': {'T': (28.3, 4.5), 'S': (49.6, 8.7), 'B': (87.8, 15.4), 'L': (196.5, 34.5),
             # microsoft/Swin-Transformer, README.md: at 256 px.
             'V2-T': (28, 5.9), 'V2-S': (50, 11.5), 'V2-B': (88, 20.3)},
}
MODULES = {'vit': vit, 'deit': deit, 'resnet': resnet, 'convnext': convnext, 'swin': swin}


@pytest.mark.parametrize('family, name', [(family, name) for family, sizes in PUBLISHED.items() for name in sizes])
def test_published_sizes(family, name):
  """To the digits that are printed, and FLOPs within 1%: papers differ in whether they count attention's products."""
  params, giga = PUBLISHED[family][name]
  side = 256 if name.startswith('V2-') else 224
  model = PureModel(family, FAMILIES[family].config(**MODULES[family].size(name)), (side, side, 3), 1000)
  image = jax.ShapeDtypeStruct((1, *model.image_shape), jnp.float32)
  forward = flops.count(lambda *args: model.apply(*args)[0], model.param_shapes(), model.stats_shapes(), image)
  digits = lambda value: len(str(value).partition('.')[2])
  assert flops.params(model)[0] / 1e6 == pytest.approx(params, abs=0.501 * 10 ** -digits(params))
  assert forward / 2e9 == pytest.approx(giga, rel=0.025 if family == 'vit' else 0.011)  # hybrids': norms counted too


@pytest.mark.parametrize('family', MODULES)
def test_every_published_size_is_tested_and_others_are_refused(family):
  sizes = vit.HYBRIDS if family == 'vit' else MODULES[family].SIZES  # plain ViTs: tests/cost/test_flops.py
  assert set(PUBLISHED[family]) == set(sizes)
  with pytest.raises(UserError, match='no such published|expected SIZE/PATCH'):
    MODULES[family].size('T/1')


def _model(name, execution=Execution(), **changes):
  family, fields = TINY[name]
  return PureModel(family, FAMILIES[family].config(**fields | changes), SHAPE, 5, execution)


def _random(shapes, seed=1):
  """Every leaf random: a zero head would hide the backbone, a zero norm a branch. Variances are positive."""
  rng = np.random.default_rng(seed)
  value = lambda path, leaf: (rng.uniform(0.5, 2, leaf.shape) if path[-1].key == 'var'
                              else 0.3 * rng.standard_normal(leaf.shape)).astype(np.float32)
  return jax.tree_util.tree_map_with_path(value, shapes)


@pytest.mark.parametrize('name', in_turn.slow_but(('vit', 'swin', 'resnet-basic', 'convnext'), TINY))
def test_bfloat16_stays_close_to_float32(name):
  """float32 logits, zero at the start; with a random head within 3e-2 of the largest."""
  a, b = _model(name), _model(name, dtype='bfloat16')
  params, stats = jax.jit(a.init)(jax.random.key(0, impl='rbg'))
  images = jax.random.normal(jax.random.key(9), (3, *SHAPE))
  x, y = (jax.jit(lambda p, m=m: m.apply(p, stats, images)[0]) for m in (a, b))
  assert not np.any(x(params))
  params['head']['kernel'] = jax.random.normal(jax.random.key(1), params['head']['kernel'].shape)
  x, y = x(params), y(params)
  assert y.dtype == jnp.float32 and 0 < np.abs(x - y).max() < 3e-2 * np.abs(x).max()


@pytest.mark.parametrize('epsilon', [1e-6, 0.1])
def test_convnexts_last_epsilon_is_that_of_the_last_norm_alone(epsilon):
  """The logits are the head's of (x - mean) / sqrt(var + epsilon), x what is normalised with another epsilon."""
  def run(last_epsilon):
    model = _model('convnext', last_epsilon=last_epsilon)
    params = _random(model.param_shapes())
    images = jax.random.normal(jax.random.key(9), (3, *SHAPE))
    return params, *model.apply(params, {}, images, capture=('features',))[:2]

  params, logits, intermediates = run(epsilon)
  x = np.asarray(intermediates['features'][-1]).mean((1, 2))
  normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
  features = normed * params['norm']['scale'] + params['norm']['bias']
  np.testing.assert_allclose(logits, features @ params['head']['kernel'] + params['head']['bias'], rtol=1e-4, atol=1e-4)
  np.testing.assert_array_equal(intermediates['features'][-1], run(1e-3)[2]['features'][-1])


def test_swin_in_shifted_windows_sees_its_neighbours_only():
  """One pair of blocks over 6 x 6 patches: which patches move which."""
  config = swin.Config(width=8, depths=(2,), num_heads=(2,), window_size=3, patch_size=1)
  model = PureModel('swin', config, (6, 6, 1), 2)
  params = _random(model.param_shapes())
  features = lambda image: model.apply(params, {}, image[None, :, :, None], capture=('features',))[1]['features'][0][0]
  moved = np.abs(jax.jit(jax.jacobian(lambda image: features(image).sum(-1)))(
      jax.random.normal(jax.random.key(0), (6, 6)))) > 1e-6
  plain = [{0, 1, 2}, {3, 4, 5}]
  shifted = [{0}, {1, 2, 3}, {4, 5}]  # 0 comes round to 4 and 5, which must not see it

  def reach(i):
    """Those that share a plain window with one that shares a shifted window with i."""
    own = next(window for window in shifted if i in window)
    return set().union(*(window for window in plain if window & own))

  for i in range(6):
    for j in range(6):
      expected = np.zeros((6, 6), bool)
      expected[np.ix_(sorted(reach(i)), sorted(reach(j)))] = True
      np.testing.assert_array_equal(moved[i, j], expected)


@pytest.mark.parametrize('family, fields, message', [
    ('swin', dict(depths=(2, 3, 6, 2)), r'model\.depths=\(2, 3, 6, 2\): 3 is odd'),
    ('swin', dict(num_heads=(3, 6)), 'one of each for every stage'),
    ('swin', dict(num_heads=(3, 5, 12, 24)), '5 does not divide the width of its stage, 192'),
    ('swin', dict(window_size=0), r'model\.window_size=0'),
    ('resnet', dict(depths=(1, 2)), 'one of each for every stage'),
    ('resnet', dict(widths=(64, 128, 256, 510)), r'510 must be a multiple of model\.bottleneck = 4'),
    ('resnet', dict(block='basic', squeeze_excite=True), 'basic has neither groups nor squeeze-and-excitation'),
    ('resnet', dict(depths=(1, 0, 1, 1)), r'model\.depths=\(1, 0, 1, 1\): must be from 1 to'),
    ('convnext', dict(), 'image of 18x23 is too small .* they need 32x32'),
    ('convnext', dict(kernel_size=4), r'model\.kernel_size=4: must be odd, such as 5'),
    ('convnext', dict(drop_path=1.0), r'model\.drop_path=1\.0'),
])
def test_shapes_that_cannot_be_built(family, fields, message):
  with pytest.raises(UserError, match=message):
    PureModel(family, FAMILIES[family].config(**fields), SHAPE, 5)
