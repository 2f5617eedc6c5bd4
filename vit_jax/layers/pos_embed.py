"""Where a patch lies: learned, sin-cos and rotary position embeddings of a grid of patches."""

import jax
import jax.numpy as jnp
import numpy as np


def sincos2d(grid: tuple[int, int], width: int, temperature: float = 10_000.0) -> np.ndarray:
  """Fixed 2-D sine-cosine embedding, float32 [h*w, D] (Chen et al. 2021, MoCo v3; big_vision's `sincos2d`).

  A quarter of the width each for sin x, cos x, sin y, cos y. `width` must divide by 4.
  """
  y, x = np.mgrid[:grid[0], :grid[1]]
  omega = 1.0 / temperature ** (np.arange(width // 4) / max(width // 4 - 1, 1))
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


def rotate(x_BTHK: jax.Array, angles: np.ndarray) -> jax.Array:
  """Turns channel pairs (i, i + K/2) of the last `len(angles)` tokens; those before (CLS) have no place and stay."""
  plain, x = jnp.split(x_BTHK, [x_BTHK.shape[1] - len(angles)], axis=1)
  cos, sin = (f(angles)[None, :, None, :].astype(x.dtype) for f in (np.cos, np.sin))
  a, b = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([plain, jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)], axis=1)
