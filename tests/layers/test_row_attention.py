"""The Pallas kernel over whole rows of logits: interpreted, beside plain attention."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers import kernels, row_attention
from vit_jax.layers.attention import attend, logit_scale


@pytest.mark.parametrize('together', [False, True], ids=['apart', 'of one product'])
@pytest.mark.parametrize('tokens, heads, head_dim', [(17, 3, 64), (50, 4, 64), (16, 2, 24)],
                         ids=['odd heads', 'two heads a tile', 'heads across tiles'])
def test_the_kernel_does_what_attention_does(tokens, heads, head_dim, together):
  q, k, v, weights = jax.random.normal(jax.random.key(0), (4, 2, tokens, heads, head_dim))
  flat = lambda x: x.reshape(*x.shape[:2], -1)

  def kernel(*qkv):
    qkv = (flat(jnp.stack(qkv, axis=3)),) if together else tuple(map(flat, qkv))
    y = row_attention.by_kernel(qkv, head_dim, logit_scale(head_dim), True)
    return jnp.sum(y * flat(weights)), y.reshape(q.shape)

  def plain(q, k, v):
    y, _ = attend(q, k, v)
    return jnp.sum(y * weights), y

  ours, theirs = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2), has_aux=True))(q, k, v) for f in (kernel, plain))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


REQUEST = kernels.Request(dtype='bfloat16', tokens=196, heads=12, head_dim=64)


def _chosen(platform, **fields):
  return kernels.choose('auto', kernels.Request(**vars(REQUEST) | fields), platform)


def test_auto_goes_by_platform_dtype_and_shape():
  assert _chosen('tpu') == ('rows', kernels.KERNELS['rows'].what)
  assert _chosen('tpu', tokens=577)[0] == 'rows' and _chosen('tpu', tokens=1024)[0] == 'splash'
  assert _chosen('tpu', tokens=577, heads=16, head_dim=72)[0] == 'splash'  # all heads at once, for they fill no tiles
  assert _chosen('gpu', tokens=197)[0] == 'cudnn'
  assert _chosen('cpu') == ('plain', 'by the compiler')


@pytest.mark.parametrize('platform', ['tpu', 'gpu'])
@pytest.mark.parametrize('field, value, words', [
    ('dtype', 'float32', 'float32'), ('relative', True, 'pos_embed=relative'), ('explicit', True, 'blocks=jit'),
    ('kind', 'local', 'attention=local')], ids=lambda x: str(x))
def test_auto_says_why_it_leaves_the_kernels_alone(platform, field, value, words):
  name, why = _chosen(platform, **{field: value})
  assert name == 'plain' and all(kernel in why for kernel in kernels.AUTO[platform]) and words in why
