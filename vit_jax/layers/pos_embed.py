"""Sin-cos, rotary and relative position embeddings of a grid of patches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.layers.dense import Dense, normal_002, parameter


def sincos2d(grid: tuple[int, int], width: int, temperature: float = 10_000.0, last: bool = True) -> np.ndarray:
  """Fixed 2-D sine-cosine embedding, float32 [h*w, D] (Chen et al. 2021, MoCo v3; big_vision's `sincos2d`).

  A quarter of the width each for sin x, cos x, sin y, cos y. `width` must divide by 4. Frequencies fall geometrically
  from 1 to 1 / temperature; without `last` they end one step before it, as in the code of MAE (He et al. 2022).
  """
  y, x = np.mgrid[:grid[0], :grid[1]]
  omega = 1.0 / temperature ** (np.arange(width // 4) / max(width // 4 - last, 1))
  y, x = np.outer(y.ravel(), omega), np.outer(x.ravel(), omega)
  return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float32)


def rope2d_angles(grid: tuple[int, int], head_dim: int, theta: float = 100.0) -> np.ndarray:
  """Axial rotary angles, float32 [h*w, K/2]: the first half turns with y, the second with x.

  Heo et al. 2024 (Rotary Position Embedding for Vision Transformer), sec. 3.2, with its theta of 100.
  `head_dim` must divide by 4.
  """
  y, x = np.mgrid[:grid[0], :grid[1]]
  frequencies = theta ** (-np.arange(head_dim // 4) / (head_dim // 4))
  angles = [np.outer(y.ravel(), frequencies), np.outer(x.ravel(), frequencies)]
  return np.concatenate(angles, axis=1).astype(np.float32)


def rope2d_centred_angles(grid: tuple[int, int], head_dim: int, theta: float = 100.0) -> np.ndarray:
  """Like `rope2d_angles`, with places from -1 to 1 whatever the grid: 2 pi x (the centre of the patch).

  Simeoni et al. 2025 (DINOv3), sec. 3.2, as in its code.
  """
  y, x = (2 * (places + 0.5) / size - 1 for places, size in zip(np.mgrid[:grid[0], :grid[1]], grid, strict=True))
  frequencies = 2 * np.pi * theta ** (-np.arange(head_dim // 4) / (head_dim // 4))
  return np.concatenate([np.outer(y.ravel(), frequencies), np.outer(x.ravel(), frequencies)], axis=1).astype(np.float32)


ANGLES = {'rope2d': rope2d_angles, 'rope2d_centred': rope2d_centred_angles}  # by the name of model.pos_embed


def resized(table_TD: np.ndarray, grid: tuple[int, int], new_grid: tuple[int, int],
            antialias: bool = False) -> np.ndarray:
  """A learned table [..., h*w, D] of one grid for another, float32, each side by itself: any rectangle will do.

  Bicubic with a = -0.75, pixel centres aligned, borders repeated and no smoothing when it shrinks: the interpolation of
  DeiT (Touvron et al. 2021a, sec. 3) and of transformers' and PyTorch's `interpolate(mode='bicubic')`, to 1e-6. (The
  original ViT's is linear: Dosovitskiy et al. 2021, sec. 3.2.) The same grid gives the table as it is. With `antialias`
  a = -0.5, and the kernel is widened where the table shrinks, as in PyTorch's `interpolate(antialias=True)`.
  """
  if grid == new_grid:
    return table_TD
  table = table_TD.reshape(*table_TD.shape[:-2], *grid, table_TD.shape[-1]).astype(np.float64)
  cubic = _smoothing_cubic if antialias else _cubic
  rows, columns = (cubic(size, new_size) for size, new_size in zip(grid, new_grid, strict=True))
  table = np.einsum('Hh,...hwd,Ww->...HWd', rows, table, columns)
  return table.reshape(*table_TD.shape[:-2], -1, table_TD.shape[-1]).astype(np.float32)


def relative_resized(table_RH: np.ndarray, grid: tuple[int, int], new_grid: tuple[int, int]) -> np.ndarray:
  """A table of relative places [..., (2h - 1)(2w - 1), H] of one grid for another; see `resized`."""
  return resized(table_RH, *(tuple(2 * size - 1 for size in side) for side in (grid, new_grid)))


def _cubic(size, new_size):
  """[new_size, size]: the share of each old place in each new one."""
  at = (np.arange(new_size) + 0.5) * size / new_size - 0.5
  first = np.floor(at).astype(int)
  weights = np.zeros((new_size, size))
  for offset in range(-1, 3):
    np.add.at(weights, (np.arange(new_size), (first + offset).clip(0, size - 1)),
              _keys(np.abs(at - first - offset), -0.75))
  return weights


def _smoothing_cubic(size, new_size):
  """The same with a kernel as wide as a new place. What lies beyond the border has no share."""
  at = (np.arange(new_size) + 0.5) * size / new_size - 0.5
  weights = _keys(np.abs(at[:, None] - np.arange(size)) / max(size / new_size, 1), -0.5)
  return weights / weights.sum(axis=1, keepdims=True)


def _keys(x, a):
  """The cubic kernel (Keys 1981, eq. 15, for any a) at distances x."""
  near = (a + 2) * x**3 - (a + 3) * x**2 + 1
  far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
  return np.where(x <= 1, near, np.where(x < 2, far, 0))


def rotate(x_BTHK: jax.Array, angles: np.ndarray) -> jax.Array:
  """Turns channel pairs (i, i + K/2) of the last `len(angles)` tokens; those before (CLS) have no place and stay."""
  plain, x = jnp.split(x_BTHK, [x_BTHK.shape[1] - len(angles)], axis=1)
  cos, sin = (f(angles)[None, :, None, :].astype(x.dtype) for f in (np.cos, np.sin))
  a, b = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([plain, jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)], axis=1)


@functools.cache
def relative_index(grid: tuple[int, int]) -> np.ndarray:
  """[T, T]: which row of the table of (2h - 1)(2w - 1) relative places belongs to a query and a key."""
  y, x = (places.ravel() for places in np.mgrid[:grid[0], :grid[1]])
  apart = lambda at, size: at[:, None] - at[None, :] + size - 1
  return apart(y, grid[0]) * (2 * grid[1] - 1) + apart(x, grid[1])


def relative_table(grid: tuple[int, int], num_heads: int, *, rngs: nnx.Rngs) -> nnx.Param:
  """That table, [(2h - 1)(2w - 1), H]; deviation 0.02 (as in Swin's code)."""
  shape = ((2 * grid[0] - 1) * (2 * grid[1] - 1), num_heads)
  return parameter(normal_002(rngs.params(), shape, 0, 0), (None, 'heads'))


@functools.cache
def log_places(window: tuple[int, int], unit: tuple[int, int]) -> np.ndarray:
  """The relative places of a window, float32 [(2h - 1)(2w - 1), 2], rows by rows, on a scale of logarithms.

  sign(x) log2(1 + 8 |x|) / log2(8) of x rows or columns over those between the ends of a window of `unit` (Liu et al.
  2022b, eq. 4; the 8 and the unit are those of its code).
  """
  y, x = np.mgrid[1 - window[0]:window[0], 1 - window[1]:window[1]]
  places = np.stack([place / max(size - 1, 1) for place, size in zip((y, x), unit, strict=True)], axis=-1)
  places = places.reshape(-1, 2)
  return (np.sign(places) * np.log2(1 + 8 * np.abs(places)) / 3).astype(np.float32)


class BiasNetwork(nnx.Module):
  """Makes the table of relative biases of any window out of relative places (Swin V2: Liu et al. 2022b, eq. 3).

  Two layers with 512 ReLUs between; the biases are from 0 to 16, as in its code.
  """

  def __init__(self, num_heads: int, *, rngs: nnx.Rngs, hidden: int = 512):
    self.up = Dense((2,), (hidden,), (None, None), rngs=rngs, kernel_init=normal_002)
    self.down = Dense((hidden,), (num_heads,), (None, 'heads'), rngs=rngs, kernel_init=normal_002, use_bias=False)

  def __call__(self, places_R2: np.ndarray) -> jax.Array:
    """[R, H] in float32."""
    return 16 * jax.nn.sigmoid(self.down(jax.nn.relu(self.up(jnp.asarray(places_R2)))))


def relative_bias(table_RH: jax.Array, grid: tuple[int, int], tokens: int | None = None) -> jax.Array:
  """[H, T, T], added to attention's logits: a learned number for each head and relative place (Liu et al. 2021, eq. 4).

  Of `tokens` the last h*w are the grid's; those before them (CLS) have no place, and no bias.
  """
  bias_HTT = jnp.moveaxis(table_RH[relative_index(grid)], 2, 0)
  before = (tokens or bias_HTT.shape[1]) - bias_HTT.shape[1]
  return jnp.pad(bias_HTT, ((0, 0), (before, 0), (before, 0))) if before else bias_HTT
