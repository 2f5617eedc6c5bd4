"""Layer-wise learning rates: the values of MAE and BEiT, on every family."""

import numpy as np
import pytest
from flax import traverse_util

from vit_jax import models
from vit_jax.optimisation import layerwise
from vit_jax.optimisation.optimizer import OptimizerConfig

MODELS = {
    'vit': (dict(patch_size=8, width=8, depth=3, mlp_dim=8, num_heads=2, pool='map'), 3),
    'hybrid': (dict(patch_size=8, width=8, depth=2, mlp_dim=8, num_heads=2, stem='resnet', stem_depths=(1, 2),
                    stem_width=8), 2),
    'deit': (dict(patch_size=8, width=8, depth=2, mlp_dim=8, num_heads=2), 2),
    'swin': (dict(width=8, depths=(2, 4), num_heads=(1, 1)), 3),
    'resnet': (dict(block='basic', depths=(1, 3), widths=(8, 16), stem='full', stem_width=8), 4),
    'convnext': (dict(depths=(1, 2), widths=(8, 16)), 3),
}


def _rates(family):
  config, layers = MODELS[family]
  family = 'vit' if family == 'hybrid' else family
  model = models.PureModel(family, models.family(family).config(**config), (32, 32, 3), 10)
  flat = traverse_util.flatten_dict(layerwise.rates(OptimizerConfig(layer_decay=0.5), model), sep=None)
  return {'/'.join(map(str, path)): rate for path, rate in flat.items()}, layers, model


@pytest.mark.parametrize('family', MODELS)
def test_rates_increase_from_the_pictures_to_the_head(family):
  """Each block learns half as fast as the next, and no layer learns faster than the one that follows it."""
  rates, layers, model = _rates(family)
  shapes = traverse_util.flatten_dict(model.param_shapes())
  for (path, shape), rate in zip(shapes.items(), rates.values(), strict=True):
    assert np.broadcast_shapes(rate.shape, shape.shape) == shape.shape and rate.ndim == len(shape.shape), path
  every = np.unique(np.concatenate([rate.ravel() for rate in rates.values()]))
  np.testing.assert_array_equal(every, 0.5 ** np.arange(layers + 1, -1, -1, dtype=np.float32))
  assert rates['head/kernel'].item() == 1
  first = 'stem/conv/kernel' if family == 'resnet' else 'patches/0/conv/kernel' if family == 'convnext' else None
  first = first or next(name for name in rates if name.startswith('patch_embed'))
  assert rates[first].item() == every[0]


def test_blocks_of_a_stack_and_modules_between_stages():
  rates, _, _ = _rates('vit')
  np.testing.assert_array_equal(rates['encoder/blocks/mlp/up/kernel'].ravel(), [1 / 8, 1 / 4, 1 / 2])
  assert rates['norm/scale'].item() == rates['attention_pool/probe'].item() == 1 and rates['pos_embed'].item() == 1 / 16
  rates, _, _ = _rates('swin')
  table = 'blocks/blocks/1/bias_table'
  assert rates[f'stages/0/{table}'].ravel() == [1 / 8]
  np.testing.assert_array_equal(rates[f'stages/1/{table}'].ravel(), [1 / 4, 1 / 2])
  assert rates['merges/0/proj/kernel'].item() == 1 / 4  # like the stage that it precedes
  rates, _, _ = _rates('convnext')
  assert rates['patches/0/norm/scale'].item() == 1 / 16 and rates['patches/1/norm/scale'].item() == 1 / 4
  rates, _, _ = _rates('resnet')
  assert rates['stages/1/first/blocks/convs/0/conv/kernel'].ravel() == [1 / 8]
  np.testing.assert_array_equal(rates['stages/1/rest/blocks/convs/0/conv/kernel'].ravel(), [1 / 4, 1 / 2])
  assert layerwise.rates(OptimizerConfig(), None) is None
