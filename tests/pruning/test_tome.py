"""Token merging compared with loops over tokens, and cases in which it must change nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.models import FAMILIES, PureModel
from vit_jax.pruning import tome

VARIANTS = {'gap': ('vit', dict(pool='gap', global_tokens=2)), 'map': ('vit', dict(pool='map', layer_scale=0.5)),
            'deit': ('deit', {})}


def _model(name, **changes):
  family, fields = VARIANTS[name]
  fields = dict(patch_size=4, width=16, depth=2, mlp_dim=32, num_heads=2) | fields | changes
  return PureModel(family, FAMILIES[family].config(**fields), (16, 24, 1), 5)


def _random(model):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda p: (0.3 * rng.standard_normal(p.shape)).astype(np.float32), model.param_shapes())


def test_merging_equals_a_literal_transcription_of_the_paper():
  rng = np.random.default_rng(0)
  x, keys = (rng.standard_normal((2, 13, n)).astype(np.float32) for n in (4, 3))
  sizes = rng.integers(1, 5, (2, 13)).astype(np.float32)
  ours, our_sizes = tome.merge(*map(jnp.asarray, (x, sizes, keys)), 3, leading=2)
  for b in range(2):
    first, second = list(range(2, 13, 2)), list(range(3, 13, 2))
    cosine = lambda i, j, b=b: keys[b, i] @ keys[b, j] / np.linalg.norm(keys[b, i]) / np.linalg.norm(keys[b, j])
    best = {i: max(second, key=lambda j: cosine(i, j)) for i in first}
    goes = sorted(first, key=lambda i: -cosine(i, best[i]))[:3]
    groups = [[0], [1], *([i] for i in first if i not in goes),
              *([j, *(i for i in goes if best[i] == j)] for j in second)]
    expected = [sum(sizes[b, i] * x[b, i] for i in group) / sum(sizes[b, i] for i in group) for group in groups]
    np.testing.assert_allclose(ours[b], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(our_sizes[b], [sum(sizes[b, i] for i in group) for group in groups])


@pytest.mark.parametrize('name', VARIANTS)
def test_merging_no_tokens_gives_the_model_itself(name):
  model = _model(name)
  params, images = _random(model), jax.random.normal(jax.random.key(1), (2, 16, 24, 1))
  np.testing.assert_allclose(jax.jit(functools.partial(tome.apply, model, merged=0))(params, images),
                             model.apply(params, {}, images)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['map', *(pytest.param(name, marks=pytest.mark.slow) for name in ('gap', 'deit'))])
def test_merging_patches_that_are_equal_changes_nothing(name):
  """Each patch is next to its copy: 24 tokens become 12, each of which counts twice. This tests the log s term."""
  model = _model(name, pos_embed='none')
  params = _random(model)
  patches = jax.random.normal(jax.random.key(1), (2, 4, 4, 3, 1, 4, 1))  # [B, row, y, column, copy, x, C]
  images = jnp.broadcast_to(patches, (2, 4, 4, 3, 2, 4, 1)).reshape(2, 16, 24, 1)
  whole = jax.jit(model.apply)(params, {}, images)[0]
  if name != 'deit':  # whose two tokens are not affected by merges after the last attention
    assert np.abs(tome.apply(model, params, images, 12) - whole).max() > 1e-3  # the second block merges non-copies
  one_block, first = _model(name, pos_embed='none', depth=1), jax.tree.map(lambda p: p[:1], params['encoder'])
  logits = lambda merged: jax.jit(functools.partial(tome.apply, one_block, merged=merged))(
      params | {'encoder': first}, images)
  np.testing.assert_allclose(logits(12), logits(0), rtol=1e-4, atol=1e-4)


def test_merging_reduces_flops():
  from vit_jax.cost import flops
  model = _model('deit')
  work = [flops.count(functools.partial(tome.apply, model, merged=r), model.param_shapes(),
                      jax.ShapeDtypeStruct((1, 16, 24, 1), jnp.float32)) for r in (0, 4, 8, 100)]
  assert work == sorted(work, reverse=True) and work[-1] < 0.75 * work[0]


@pytest.mark.parametrize('changes, message', [(dict(pos_embed='rope2d'), 'the place of each token'),
                                              (dict(attention='linear'), 'attention=linear')])
def test_models_whose_tokens_cannot_be_merged(changes, message):
  with pytest.raises(UserError, match=message):
    tome.check(_model('gap', **changes))
