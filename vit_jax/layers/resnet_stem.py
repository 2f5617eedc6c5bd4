"""The ResNet in front of a hybrid ViT: BiT's, with group norm and standardised kernels (Kolesnikov et al. 2020)."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers.conv import Conv
from vit_jax.layers.dense import Dense, lecun_normal
from vit_jax.layers.norm import GroupNorm


class StandardisedConv(Conv):
  """A convolution whose kernel is standardised for each output channel (Qiao et al. 2019, eq. 5)."""

  def weights(self) -> jax.Array:
    kernel = super().weights()
    kernel = kernel - kernel.mean(axis=(0, 1, 2), keepdims=True)
    return kernel / (jnp.sqrt(jnp.mean(kernel * kernel, axis=(0, 1, 2), keepdims=True)) + 1e-5)


class ConvNorm(nnx.Module):
  """A standardised convolution and its group norm."""

  def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, rngs: nnx.Rngs, stride: int = 1,
               role: str = 'hidden', zero_scale: bool = False, dtype=jnp.float32):
    self.conv = StandardisedConv(in_channels, out_channels, kernel_size, stride=stride, role=role, axis='embed',
                                 rngs=rngs, dtype=dtype)
    self.norm = GroupNorm(out_channels, zero_scale=zero_scale, dtype=dtype)

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    return self.norm(self.conv(x_BHWC))


class Block(nnx.Module):
  """relu(shortcut + branch): 1 x 1, 3 x 3 (which strides), 1 x 1 to four times the channels."""

  def __init__(self, in_width: int, inner: int, stride: int, *, rngs: nnx.Rngs, dtype=jnp.float32):
    width = 4 * inner
    self.convs = nnx.List([ConvNorm(in_width, inner, 1, rngs=rngs, dtype=dtype),
                           ConvNorm(inner, inner, 3, stride=stride, rngs=rngs, dtype=dtype),
                           ConvNorm(inner, width, 1, zero_scale=True, rngs=rngs, dtype=dtype)])
    changes = in_width != width or stride != 1
    self.shortcut = ConvNorm(in_width, width, 1, stride=stride, rngs=rngs, dtype=dtype) if changes else None

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    first, second, third = self.convs
    y_BHWC = third(jax.nn.relu(second(jax.nn.relu(first(x_BHWC)))))
    return jax.nn.relu(y_BHWC + (x_BHWC if self.shortcut is None else self.shortcut(x_BHWC)))


class ResNetStem(nnx.Module):
  """[B, H, W, C] -> [B, T, D]: a convolution of 7 x 7 and max pooling, both of stride 2; stages; a linear map.

  Each stage but the first halves the picture, so n stages make ceil(H / 2^(n+1)) rows of tokens. No example depends on
  its batch.
  """

  def __init__(self, depths: tuple[int, ...], stem_width: int, channels: int, width: int, *, rngs: nnx.Rngs,
               dtype=jnp.float32):
    self.root = ConvNorm(channels, stem_width, 7, stride=2, role='input', rngs=rngs, dtype=dtype)
    self.blocks, channels = nnx.List(), stem_width
    for stage, depth in enumerate(depths):
      for i in range(depth):
        stride = 2 if stage and not i else 1
        self.blocks.append(Block(channels, stem_width << stage, stride, rngs=rngs, dtype=dtype))
        channels = 4 * stem_width << stage
    self.proj = Dense((channels,), (width,), (None, 'embed'), rngs=rngs, kernel_init=lecun_normal, dtype=dtype)

  def __call__(self, images_BHWC: jax.Array) -> jax.Array:
    x_BHWC = jax.nn.relu(self.root(images_BHWC))
    x_BHWC = jax.lax.reduce_window(x_BHWC, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME')
    for block in self.blocks:
      x_BHWC = block(x_BHWC)
    x_BHWD = self.proj(x_BHWC)
    return x_BHWD.reshape(x_BHWD.shape[0], -1, x_BHWD.shape[-1])
