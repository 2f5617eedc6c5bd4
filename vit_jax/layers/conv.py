"""The convolution that stems and convolutional families are built of."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers.dense import Initializer, lecun_normal, parameter
from vit_jax.parallel import mesh as mesh_lib


def he_normal_fan_out(key, shape, fan_in, fan_out):
  """N(0, 2 / fan_out) (He et al. 2015, eq. 14): the published CNNs' convolutions, whose ReLUs halve the variance."""
  del fan_in
  return jax.random.normal(key, shape, jnp.float32) * math.sqrt(2 / fan_out)


class Conv(nnx.Module):
  """A square convolution over [B, H, W, C_in].

  An odd kernel sees (k - 1) / 2 zeros beyond every edge, as in the published CNNs (`SAME` pads a stride of 2 on one
  side only): a stride of s gives ceil(H / s) places. An even one, which is for patches (k = s), sees none: floor(H / s).

  Of a kernel [k, k, C_in / groups, C_out] the output channels carry a logical axis: `fsdp` splits `embed`. Fans are
  k^2 C_in / groups and k^2 C_out (PyTorch's, and so the published initial values, also with groups).
  """

  def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, rngs: nnx.Rngs, stride: int = 1,
               groups: int = 1, use_bias: bool = False, role: str = 'hidden', axis: str | None = None,
               kernel_init: Initializer = lecun_normal, dtype=jnp.float32):
    """No bias, unless asked for: what follows is mostly a norm."""
    self.stride, self.groups, self.dtype = stride, groups, dtype
    self.padding = (kernel_size - 1) // 2 if kernel_size % 2 else 0
    shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
    self.axes = (None, None, None, axis)
    fan_in, fan_out = math.prod(shape[:3]), kernel_size**2 * out_channels
    self.kernel = parameter(kernel_init(rngs.params(), shape, fan_in, fan_out), self.axes, role, fan_in=fan_in,
                            init_power=0.0 if role == 'input' else -0.5)
    self.bias = parameter(jnp.zeros(out_channels, jnp.float32), (axis,), role) if use_bias else None

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    """[B, H, W, C_in] -> [B, H', W', C_out] in `dtype`."""
    y_BHWC = jax.lax.conv_general_dilated(
        x_BHWC.astype(self.dtype), mesh_lib.gathered(self.kernel[...].astype(self.dtype), self.axes),
        (self.stride, self.stride), 2 * ((self.padding, self.padding),), feature_group_count=self.groups,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    return y_BHWC if self.bias is None else y_BHWC + self.bias[...].astype(self.dtype)[None, None, None]
