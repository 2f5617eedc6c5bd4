"""Matching weights to a model with other classes or pictures: positions are resized, the head is new."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import traverse_util

from vit_jax import models
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop.matching import matching_arrays, resized
from vit_jax.interop.weights import Weights

VIT = dict(patch_size=4, width=8, depth=2, mlp_dim=16, num_heads=2)
SWIN = dict(patch_size=2, width=8, depths=(2, 2), num_heads=(1, 2), window_size=6)
FAMILIES = {'vit': VIT, 'deit': VIT, 'swin': SWIN}


def _model(family, config, size, classes=3):
  return models.PureModel(family, models.family(family).config(**config), (*size, 3), classes)


def _weights(family, config, size=(16, 16), classes=3, names=('a', 'b', 'c')):
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda s: rng.standard_normal(s.shape, np.float32),
                        _model(family, config, size, classes).param_shapes())
  return Weights('there', family, dict(config), params, {}, Preprocessing(size), names)


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('size', [(16, 16), (24, 8), (8, 32)])
def test_any_picture(family, size):
  """Everything but the position tables is unchanged, and the model runs on any rectangle."""
  weights, model = _weights(family, FAMILIES[family]), _model(family, FAMILIES[family], size)
  arrays = matching_arrays(weights, model, ('a', 'b', 'c'))
  shapes = jax.tree.map(lambda a: a.shape, arrays['params'])
  assert shapes == jax.tree.map(lambda s: s.shape, model.param_shapes())
  for path, array in traverse_util.flatten_dict(arrays['params']).items():
    if path[-1] not in ('pos_embed', 'bias_table'):
      np.testing.assert_array_equal(array, traverse_util.flatten_dict(weights.params)[path])
  jax.eval_shape(model.apply, arrays['params'], arrays['stats'], np.ones((1, *size, 3), np.float32))


@pytest.mark.parametrize('pos_embed', ['learned', 'relative', 'sincos2d', 'rope2d', 'none'])
def test_used_at_another_size(pos_embed):
  """A model for one size can be used at any other; at its own size it is unchanged."""
  weights = _weights('vit', VIT | dict(pos_embed=pos_embed))
  wide = resized(weights, (8, 24))
  assert wide.image_shape == (8, 24, 3)
  apply = lambda w: jax.jit(w.pure_model().apply)(w.params, w.stats, np.ones((1, *w.image_shape), np.float32))[0]
  assert np.isfinite(apply(wide)).all()
  np.testing.assert_array_equal(apply(resized(weights, (16, 16))), apply(weights))
  with pytest.raises(UserError, match='model.patch_size=4 does not divide the image of 10x16'):
    resized(weights, (10, 16))


def test_the_head_is_new_if_the_classes_differ():
  weights = _weights('deit', VIT)
  heads = {'head', 'distillation_head'}
  assert not heads & matching_arrays(weights, _model('deit', VIT, (16, 16), 5), tuple('vwxyz'))['params'].keys()
  reordered = matching_arrays(weights, _model('deit', VIT, (16, 16)), ('c', 'a', 'b'))['params']
  assert not heads & reordered.keys()
  assert heads <= matching_arrays(weights, _model('deit', VIT, (16, 16)), ('a', 'b', 'c'))['params'].keys()
  unnamed = dataclasses.replace(weights, class_names=None)
  assert heads <= matching_arrays(unnamed, _model('deit', VIT, (16, 16)), ('x', 'y', 'z'))['params'].keys()
  headless = dataclasses.replace(weights, params={k: v for k, v in weights.params.items() if k not in heads})
  assert not heads & matching_arrays(headless, _model('deit', VIT, (16, 16)), ('a', 'b', 'c'))['params'].keys()


@pytest.mark.parametrize('change, patterns, message', [
    (dict(pool='gap'), ('cls',), r'cls \(8,\): not in this model'),
    (dict(layer_scale=0.1), ('encoder/*/scale?',), 'encoder/blocks/scale1: not in the weights'),
    (dict(width=16), ('*',), r'cls: expected \(16,\), got \(8,\)'),
    (dict(depth=3), ('encoder/*',), r'bias: expected \(3, 8\), got \(2, 8\)'),
])
def test_arrays_that_do_not_match_are_named_unless_ignored(change, patterns, message):
  weights, model = _weights('vit', VIT), _model('vit', VIT | change, (16, 16))
  with pytest.raises(UserError, match=message):
    matching_arrays(weights, model, ('a', 'b', 'c'))
  arrays = matching_arrays(weights, model, ('a', 'b', 'c'), patterns)
  assert not any(path[0] == patterns[0] for path in traverse_util.flatten_dict(arrays['params']))


def test_a_pattern_that_matches_nothing():
  with pytest.raises(UserError, match=r"pretrained.ignore='heda/\*': matches nothing"):
    matching_arrays(_weights('vit', VIT), _model('vit', VIT, (16, 16)), ('a', 'b', 'c'), ('heda/*',))
