"""Cutting a grid of patches into windows, within which attention is computed."""

import dataclasses

import jax
import jax.numpy as jnp

MASKED = -1e9  # added to the logits of tokens that do not see each other


@dataclasses.dataclass(frozen=True)
class Windows:
  """How a grid of patches is cut into windows."""
  grid: tuple[int, int]
  window: tuple[int, int]
  shift: tuple[int, int] = (0, 0)

  @property
  def padded(self) -> tuple[int, int]:
    """The grid, filled up to whole windows."""
    return tuple(-(-size // window) * window for size, window in zip(self.grid, self.window))

  def split(self, x_BHWD: jax.Array) -> jax.Array:
    """[B, H, W, D] -> [B N, T, D], the N windows of each picture in row-major order."""
    (h, w), (a, b) = self.padded, self.window
    x_BHWD = jnp.pad(x_BHWD, ((0, 0), (0, h - self.grid[0]), (0, w - self.grid[1]), (0, 0)))
    x_BHWD = jnp.roll(x_BHWD, (-self.shift[0], -self.shift[1]), axis=(1, 2))
    x = x_BHWD.reshape(-1, h // a, a, w // b, b, x_BHWD.shape[-1])
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, a * b, x_BHWD.shape[-1])

  def join(self, x_NTD: jax.Array) -> jax.Array:
    """The inverse of `split`."""
    (h, w), (a, b) = self.padded, self.window
    x = x_NTD.reshape(-1, h // a, w // b, a, b, x_NTD.shape[-1])
    x_BHWD = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, h, w, x_NTD.shape[-1])
    return jnp.roll(x_BHWD, self.shift, axis=(1, 2))[:, :self.grid[0], :self.grid[1]]
