import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.layers import splash
from vit_jax.layers.attention import attend, logit_scale
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, swin, vit

SMALL = dict(patch_size=4, width=32, depth=2, mlp_dim=48, num_heads=2)


@pytest.mark.parametrize('tokens', [17, 128, 150, 300], ids=['part of a tile', 'a tile', 'part of two', 'two blocks'])
def test_the_kernel_does_what_attention_does(tokens, monkeypatch):
  monkeypatch.setattr(splash, '_BLOCK', 256)
  q, k, v, weights = jax.random.normal(jax.random.key(0), (4, 2, tokens, 2, 16))
  by_heads = lambda x: jnp.swapaxes(x, 1, 2)

  def kernel(q, k, v):
    y = splash.by_kernel(*map(by_heads, (q, k, v)), scale=logit_scale(16), interpret=True)
    return jnp.sum(by_heads(y) * weights), by_heads(y)

  def plain(q, k, v):
    y, _ = attend(q, k, v)
    return jnp.sum(y * weights), y

  ours, theirs = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2), has_aux=True))(q, k, v) for f in (kernel, plain))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_elsewhere_than_on_tpus_a_model_does_without():
  build = lambda **execution: PureModel('vit', vit.Config(**SMALL), (8, 8, 3), 7, Execution(**execution))
  with_kernel, without = build(attention_kernel='splash'), build()
  params, _ = without.init(jax.random.key(0))
  images = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
  got, wanted = (model.apply(params, {}, images, capture=('features',)) for model in (with_kernel, without))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, wanted)
  assert with_kernel.apply(params, {}, images, capture=('attention',))[1]['attention'].shape == (2, 2, 2, 5, 5)


@pytest.mark.parametrize('model, execution, words', [
    (dict(attention='local'), {}, 'not for attention=local'),
    (dict(pos_embed='relative'), {}, 'pos_embed=relative'),
    ({}, dict(blocks='shard_map'), 'blocks=jit')], ids=str)
def test_what_the_kernel_cannot_do_is_refused(model, execution, words):
  with pytest.raises(UserError, match=f'attention_kernel=splash.*{words}'):
    PureModel('vit', vit.Config(**SMALL | model), (8, 8, 3), 7, Execution(attention_kernel='splash', **execution))


def test_families_that_would_not_use_it_refuse_it():
  with pytest.raises(UserError, match='attention_kernel=splash is for vit and deit, not for swin'):
    PureModel('swin', swin.Config(), (32, 32, 3), 7, Execution(attention_kernel='splash'))
