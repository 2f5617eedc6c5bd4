"""Attention at a cost that is linear in the number of tokens: kinds of attention of `layers.kernels`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.layers.attention import attend
from vit_jax.layers.windows import MASKED, Windows


def local_attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, grid: tuple[int, int], radius: int,
                    base_head_dim: int | None = None) -> jax.Array:
  """Each patch sees those at most `radius` rows and columns away, and all tokens that are no patches: [B, T, H, K].

  Longformer's sliding window and global tokens (Beltagy et al. 2020, sec. 3.1) on a grid. The last h*w tokens are the
  grid's; those before them (CLS, learned ones) see all and are seen by all.

  Queries are cut into windows of radius x radius, and each window is given the keys of the (3 radius)^2 patches around
  it, of which a mask leaves each query those within its reach: T (9 radius^2 + globals) products in the place of T^2.
  """
  before = q_BTHK.shape[1] - grid[0] * grid[1]
  patches = lambda x: x[:, before:].reshape(x.shape[0], *grid, -1)
  cut, heads = Windows(grid, (radius, radius)), q_BTHK.shape[2:]
  count = cut.padded[0] * cut.padded[1] // radius**2
  windows = lambda x_BHWD: x_BHWD.reshape(x_BHWD.shape[0], -1, *heads)
  spread = lambda x: jnp.repeat(x[:, :before], count, axis=0)  # the globals, beside every window

  keys, values = (jnp.concatenate([spread(x), windows(_around(patches(x), cut, radius))], axis=1)
                  for x in (k_BTHK, v_BTHK))
  bias_N1TS = np.pad(_out_of_reach(grid, radius), ((0, 0), (0, 0), (before, 0)))[:, None]
  y_NTHK, _ = attend(windows(cut.split(patches(q_BTHK))), keys, values, base_head_dim, bias_N1TS)
  y_BTHK = cut.join(y_NTHK.reshape(*y_NTHK.shape[:2], -1)).reshape(q_BTHK.shape[0], -1, *heads)
  if not before:
    return y_BTHK
  return jnp.concatenate([attend(q_BTHK[:, :before], k_BTHK, v_BTHK, base_head_dim)[0], y_BTHK], axis=1)


def linear_attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array) -> jax.Array:
  """phi(q) (sum phi(k) v) / (phi(q) sum phi(k)) with phi = elu + 1 (Katharopoulos et al. 2020, eqs. 5 to 7).

  [B, T, H, K], at a cost that is linear in T: the weights phi(q) phi(k) are never made. Sums in float32.
  """
  phi = lambda x: jax.nn.elu(x.astype(jnp.float32)) + 1
  q_BTHK, k_BTHK = phi(q_BTHK), phi(k_BTHK)
  sums_BHKV = jnp.einsum('bthk,bthv->bhkv', k_BTHK, v_BTHK.astype(jnp.float32))
  weight_BTH = jnp.einsum('bthk,bhk->bth', q_BTHK, k_BTHK.sum(axis=1))
  return (jnp.einsum('bthk,bhkv->bthv', q_BTHK, sums_BHKV) / weight_BTH[..., None]).astype(v_BTHK.dtype)


def _around(x_BHWD, cut, radius):
  """[B N, (side + 2 radius)^2, D]: what is around each window, zeros beyond the edge."""
  for axis, (size, padded, side) in enumerate(zip(cut.grid, cut.padded, cut.window), 1):
    pads = [(0, 0)] * x_BHWD.ndim
    pads[2 * axis - 1] = (radius, padded - size + radius)
    first = side * np.arange(padded // side)
    x_BHWD = jnp.take(jnp.pad(x_BHWD, pads), first[:, None] + np.arange(side + 2 * radius), axis=2 * axis - 1)
  b, rows, _, columns, _, d = x_BHWD.shape
  return x_BHWD.transpose(0, 1, 3, 2, 4, 5).reshape(b * rows * columns, -1, d)


@functools.cache
def _out_of_reach(grid, radius):
  """[N, radius^2, (3 radius)^2] float32: 0 for a window's queries and keys in reach of each other, else MASKED."""
  along = []
  for size in grid:
    query = np.arange(-(-size // radius) * radius).reshape(-1, radius)
    key = query[:, :1] - radius + np.arange(3 * radius)
    near = np.abs(query[:, :, None] - key[:, None]) <= radius
    along.append(near & (key[:, None] >= 0) & (key[:, None] < size))
  both = along[0][:, None, :, None, :, None] & along[1][None, :, None, :, None, :]  # [rows, columns, q, q, k, k]
  return np.where(both.reshape(-1, radius**2, 9 * radius**2), 0, MASKED).astype(np.float32)
