import dataclasses
import itertools

import jax
import numpy as np
import pytest

from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.inspection import attention
from vit_jax.inspection.maps import Maps
from vit_jax.interop.classifier import Classifier
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, deit, resnet, vit
from vit_jax.training.trained import Trained

SHAPE = dict(patch_size=4, width=16, depth=3, mlp_dim=16, num_heads=2)
MODELS = {'deit': deit.Config(**SHAPE), **{pool: vit.Config(**SHAPE, pool=pool) for pool in ('cls', 'gap', 'map')}}
MODELS['registers'] = vit.Config(**SHAPE, pool='gap', global_tokens=3)
LEADING = {'deit': 2, 'cls': 1, 'gap': 0, 'map': 0, 'registers': 3}
RESNET = resnet.Config(block='basic', depths=(1,), widths=(8,), stem='full', stem_width=8)


def _trained(family, config, image_shape=(12, 20, 3)):
  model = PureModel(family, config, image_shape, 5, Execution())
  params, stats = model.init(jax.random.key(0))
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  params = jax.tree.unflatten(tree, [0.5 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])
  return Trained(class_names=tuple('abcde'), preprocessing=Preprocessing(image_shape[:2]), model=model, params=params,
                 stats=stats)


def _pictures(n=3):
  return list(np.random.default_rng(0).integers(0, 255, (n, 12, 20, 3), np.uint8))


def _by_hand(model, picture, lead, classified):
  """(last, rollout, distance) of one picture, computed by loops over the attention weights of the model itself."""
  images = model.preprocessing.normalize(picture[None])
  _, intermediates, _ = model.model.apply(model.params, model.stats, images, capture=('attention',))
  weights = np.asarray(intermediates['attention'], np.float64)[:, 0]  # [L, H, T, T]
  tokens, places = weights.shape[-1], list(itertools.product(range(3), range(5)))
  rolled = np.eye(tokens)
  for layer in weights.mean(axis=1):
    rolled = (0.5 * layer + 0.5 * np.eye(tokens)) @ rolled
  rows = range(lead) if classified else range(lead, tokens)
  seen = lambda matrix: np.mean([matrix[row, lead:] for row in rows], axis=0).reshape(3, 5)
  distance = np.zeros(weights.shape[:2])
  for layer, head in np.ndindex(*distance.shape):
    for q, (y, x) in enumerate(places):
      near = weights[layer, head, lead + q, lead:]
      away = [4 * np.hypot(y - v, x - u) for v, u in places]
      distance[layer, head] += np.dot(near / near.sum(), away) / len(places)
  last, rolled = seen(weights.mean(axis=1)[-1]), seen(rolled)
  return last / last.sum(), rolled / rolled.sum(), distance


@pytest.mark.parametrize('name', MODELS)
def test_maps_equal_those_computed_by_loops(name):
  model, pictures = _trained('deit' if name == 'deit' else 'vit', MODELS[name]), _pictures()
  found = attention.attention(model, pictures)
  last, rolled, distance = zip(*(_by_hand(model, picture, LEADING[name], name in ('deit', 'cls'))
                                  for picture in pictures))
  np.testing.assert_allclose(found.last, last, atol=1e-5)
  np.testing.assert_allclose(found.rollout, rolled, atol=1e-5)
  np.testing.assert_allclose(found.distance, np.mean(distance, axis=0), rtol=1e-4)


def test_pictures_do_not_affect_each_other(monkeypatch):
  model, pictures = _trained('vit', MODELS['cls']), _pictures(5)
  together = attention.attention(model, pictures)
  monkeypatch.setattr(attention, '_BYTES', 2 * 4 * 3 * 2 * 17**2)  # two at a time, one left over
  apart = attention.attention(model, pictures)
  for field in dataclasses.fields(together):
    np.testing.assert_allclose(getattr(together, field.name), getattr(apart, field.name), rtol=1e-5)


def test_rollout_of_identity_attention_is_the_identity():
  np.testing.assert_allclose(attention.rollout(np.broadcast_to(np.eye(6, dtype=np.float32), (4, 6, 6))), np.eye(6))


def test_the_distance_is_zero_for_identity_attention_and_the_mean_distance_for_uniform_attention():
  away = attention._distances(_trained('vit', MODELS['cls']).model)
  near, even = np.eye(16, dtype=np.float32), np.full((16, 16), 1 / 16, np.float32)  # 15 patches behind a CLS token
  distance = attention.mean_distance(np.stack([near, even])[None], away)
  np.testing.assert_allclose(distance, [[0, away.mean()]], rtol=1e-5)
  assert away[0, 1] == away[0, 5] == 4


def test_other_families_are_refused():
  with pytest.raises(UserError, match='every patch attends to every other .*resnet'):
    attention.attention(_trained('resnet', RESNET), _pictures())
  with pytest.raises(UserError, match='attention=linear'):
    attention.check(_trained('vit', vit.Config(**SHAPE, attention='linear')))
  with pytest.raises(UserError, match='an exported file has only its function'):
    attention.check(Classifier(class_names=('a',), preprocessing=Preprocessing((8, 8))))


def test_a_folder_of_maps(tmp_path):
  maps = Maps(_trained('vit', MODELS['cls']), tmp_path / 'out')
  maps.see(['a/x.png', 'b/x.jpg', 'distance.png'], _pictures(), ['$x_1', 'cat', 'dog'])
  assert '3 pictures' in maps.close()
  written = {path.name for path in (tmp_path / 'out').iterdir()}
  assert written == {'x.png', 'x-2.png', 'distance-2.png', 'distance.png'}
  assert all((tmp_path / 'out' / name).read_bytes().startswith(b'\x89PNG') for name in written)
