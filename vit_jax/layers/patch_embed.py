"""Pictures to tokens."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers.conv import Conv
from vit_jax.layers.dense import Dense, lecun_normal
from vit_jax.layers.norm import LayerNorm


def patchify(images_BHWC: jax.Array, patch_size: int) -> jax.Array:
  """[B, H, W, C] -> [B, (H/p)(W/p), p*p*C], patches in row-major order, each in (row, column, channel) order."""
  b, h, w, c = images_BHWC.shape
  p = patch_size
  x = images_BHWC.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, (h // p) * (w // p), p * p * c)


def unpatchify(patches_BTP: jax.Array, image_shape: tuple[int, int, int], patch_size: int) -> jax.Array:
  """The inverse of `patchify`: [B, T, p*p*C] -> [B, H, W, C]."""
  (h, w, c), p = image_shape, patch_size
  x = patches_BTP.reshape(-1, h // p, w // p, p, p, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(-1, h, w, c)


class PatchEmbed(nnx.Module):
  """Linear patch embedding as one matmul (Dosovitskiy et al. 2021, eq. 1): [B, H, W, C] -> [B, T, D]."""

  def __init__(self, patch_size: int, channels: int, width: int, *, rngs: nnx.Rngs, use_bias: bool = True,
               dtype=jnp.float32):
    self.patch_size = patch_size
    self.proj = Dense((patch_size * patch_size * channels,), (width,), (None, 'embed'), rngs=rngs,
                      role='input', kernel_init=lecun_normal, use_bias=use_bias, dtype=dtype)

  def __call__(self, images_BHWC: jax.Array) -> jax.Array:
    return self.proj(patchify(images_BHWC, self.patch_size))


class ConvStem(nnx.Module):
  """"Early convolutions help transformers see better" (Xiao et al. 2021, sec. 4): [B, H, W, C] -> [B, T, D].

  log2(p) convolutions of 3 x 3 and stride 2 whose channels double up to the width, then one of 1 x 1, in the place of
  the p x p patch embedding: T = ceil(H/p) ceil(W/p). Each of the former is followed by a norm and a ReLU; the norm is
  LayerNorm over the channels where the paper has batch norm, so that no example depends on its batch.
  """

  def __init__(self, patch_size: int, channels: int, width: int, *, rngs: nnx.Rngs, dtype=jnp.float32):
    """`patch_size` is a power of two, and `width` a multiple of half of it."""
    self.convs, self.norms = nnx.List(), nnx.List()
    levels = patch_size.bit_length() - 1
    for level in range(levels):
      out = width >> (levels - 1 - level)
      self.convs.append(Conv(channels, out, 3, rngs=rngs, stride=2, role='hidden' if level else 'input', dtype=dtype))
      self.norms.append(LayerNorm(out, axis=None, dtype=dtype))
      channels = out
    self.proj = Dense((channels,), (width,), (None, 'embed'), rngs=rngs, kernel_init=lecun_normal, dtype=dtype)

  def __call__(self, images_BHWC: jax.Array) -> jax.Array:
    x_BHWC = images_BHWC
    for conv, norm in zip(self.convs, self.norms, strict=True):
      x_BHWC = jax.nn.relu(norm(conv(x_BHWC)))
    x_BHWD = self.proj(x_BHWC)
    return x_BHWD.reshape(x_BHWD.shape[0], -1, x_BHWD.shape[-1])
