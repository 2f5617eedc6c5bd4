"""Pictures to tokens."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers.dense import Dense, lecun_normal


def patchify(images_BHWC: jax.Array, patch_size: int) -> jax.Array:
  """[B, H, W, C] -> [B, (H/p)(W/p), p*p*C], patches in row-major order, each in (row, column, channel) order."""
  b, h, w, c = images_BHWC.shape
  p = patch_size
  x = images_BHWC.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, (h // p) * (w // p), p * p * c)


class PatchEmbed(nnx.Module):
  """Linear patch embedding as one matmul (Dosovitskiy et al. 2021, eq. 1): [B, H, W, C] -> [B, T, D]."""

  def __init__(self, patch_size: int, channels: int, width: int, *, rngs: nnx.Rngs, dtype=jnp.float32):
    self.patch_size = patch_size
    self.proj = Dense((patch_size * patch_size * channels,), (width,), (None, 'embed'), rngs=rngs,
                      role='input', kernel_init=lecun_normal, dtype=dtype)

  def __call__(self, images_BHWC: jax.Array) -> jax.Array:
    return self.proj(patchify(images_BHWC, self.patch_size))
