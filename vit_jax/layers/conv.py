"""The convolution that stems and convolutional families are built of."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers.dense import Initializer, lecun_normal, parameter


class Conv(nnx.Module):
  """A square convolution over [B, H, W, C_in] with SAME padding, without bias: what follows it is a norm.

  A stride of s gives ceil(H / s) x ceil(W / s) places, whatever the kernel's size.
  """

  def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, rngs: nnx.Rngs, stride: int = 1,
               role: str = 'hidden', axis: str | None = None, kernel_init: Initializer = lecun_normal,
               dtype=jnp.float32):
    self.stride, self.dtype = stride, dtype
    shape = (kernel_size, kernel_size, in_channels, out_channels)
    fan_in, fan_out = kernel_size**2 * in_channels, kernel_size**2 * out_channels
    self.kernel = parameter(kernel_init(rngs.params(), shape, fan_in, fan_out), (None, None, None, axis), role,
                            fan_in=fan_in, init_power=0.0 if role == 'input' else -0.5)

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    """[B, H, W, C_in] -> [B, ceil(H/s), ceil(W/s), C_out] in `dtype`."""
    return jax.lax.conv_general_dilated(
        x_BHWC.astype(self.dtype), self.kernel[...].astype(self.dtype), (self.stride, self.stride), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
