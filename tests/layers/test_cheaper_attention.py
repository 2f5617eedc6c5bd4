"""Local and linear attention against dense attention with the same weights written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers.attention import attend, logit_scale
from vit_jax.layers.cheaper_attention import linear_attention, local_attention


def _qkv(tokens, heads=2, head_dim=4):
  return jax.random.normal(jax.random.key(0), (3, 2, tokens, heads, head_dim))


@pytest.mark.parametrize('grid, radius, before', [((5, 7), 2, 0), ((5, 7), 2, 3), ((4, 4), 1, 1), ((3, 2), 4, 1),
                                                  ((6, 6), 3, 0)])
def test_local_attention_is_dense_attention_under_a_mask(grid, radius, before):
  y, x = (at.ravel() for at in np.mgrid[:grid[0], :grid[1]])
  near = lambda at: np.abs(at[:, None] - at) <= radius
  seen = np.pad(near(y) & near(x), ((before, 0), (before, 0)), constant_values=True)
  q, k, v = _qkv(len(seen))
  loss = lambda attend: lambda *qkv: (jnp.sum(jnp.sin(y := attend(*qkv))), y)
  dense = lambda *qkv: attend(*qkv, None, np.where(seen, 0, -1e9).astype(np.float32)[None, None])[0]
  local = lambda *qkv: local_attention(*qkv, grid, radius)
  expected, ours = (jax.jit(jax.grad(loss(f), argnums=(0, 1, 2), has_aux=True))(q, k, v) for f in (dense, local))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), expected, ours)


def test_local_attention_within_reach_of_all_is_full_attention_and_scales_its_logits():
  q, k, v = _qkv(1 + 9)
  np.testing.assert_allclose(local_attention(q, k, v, (3, 3), 2, base_head_dim=16), attend(q, k, v, 16)[0],
                             rtol=1e-4, atol=1e-5)
  assert logit_scale(4, 16) != logit_scale(4)


def test_linear_attention_is_dense_attention_with_a_kernel():
  """Katharopoulos et al. 2020, eq. 4, with similarity phi(q) phi(k) written out."""
  q, k, v = _qkv(11)

  def dense(q, k, v):
    phi = lambda x: jnp.where(x > 0, x + 1, jnp.exp(x))
    weights = jnp.einsum('bthk,bshk->bhts', phi(q), phi(k))
    return jnp.einsum('bhts,bshk->bthk', weights / weights.sum(-1, keepdims=True), v)

  loss = lambda attend: lambda *qkv: (jnp.sum(jnp.sin(y := attend(*qkv))), y)
  expected, ours = (jax.jit(jax.grad(loss(f), argnums=(0, 1, 2), has_aux=True))(q, k, v)
                    for f in (dense, linear_attention))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), expected, ours)


@pytest.mark.parametrize('kind', ['local', 'linear'])
def test_cost_is_linear_in_the_tokens(kind):
  from vit_jax.cost import flops
  attend_by = {'local': lambda *qkv: local_attention(*qkv, (side, side), 2), 'linear': linear_attention}[kind]
  work = []
  for side in (8, 16, 32):
    shape = jax.ShapeDtypeStruct((1, side * side, 2, 8), jnp.float32)
    work.append(flops.count(attend_by, shape, shape, shape))
  assert work[1] == 4 * work[0] and work[2] == 4 * work[1]


def test_types_stay():
  q, k, v = _qkv(9).astype(jnp.bfloat16)
  assert linear_attention(q, k, v).dtype == local_attention(q, k, v, (3, 3), 1).dtype == jnp.bfloat16
