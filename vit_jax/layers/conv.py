"""The convolution that stems and convolutional families are built of."""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers.dense import Initializer, init_power, lecun_normal, parameter
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.gathered import with_gathered


def he_normal_fan_out(key, shape, fan_in, fan_out):
  """N(0, 2 / fan_out) (He et al. 2015, eq. 14): the published CNNs' convolutions, whose ReLUs halve the variance."""
  del fan_in
  return jax.random.normal(key, shape, jnp.float32) * math.sqrt(2 / fan_out)


class Conv(nnx.Module):
  """A square convolution over [B, H, W, C_in].

  A stride of s gives ceil(H / s) places with SAME padding, and with (k - 1) / 2 zeros beyond each edge, which is how
  the published CNNs pad (at a stride of 2 and an even side, one pixel apart). Without padding, and with k = s, it cuts
  floor(H / s) patches.

  Of a kernel [k, k, C_in / groups, C_out] the output channels carry a logical axis: `fsdp` splits `embed`. Fans are
  k^2 C_in / groups and k^2 C_out (PyTorch's, and so the published initial values, also with groups).
  """

  def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, rngs: nnx.Rngs, stride: int = 1,
               padding: int | None = None, groups: int = 1, use_bias: bool = False, role: str = 'hidden',
               axis: str | None = None, kernel_init: Initializer = lecun_normal, dtype=jnp.float32):
    """`padding`: zeros beyond each edge; None: SAME. No bias, unless asked for: what follows is mostly a norm."""
    self.stride, self.groups, self.dtype = stride, groups, dtype
    self.padding = 'SAME' if padding is None else 2 * ((padding, padding),)
    shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
    self.axes = (None, None, None, axis)
    fan_in, fan_out = math.prod(shape[:3]), kernel_size**2 * out_channels
    self.kernel = parameter(kernel_init(rngs.params(), shape, fan_in, fan_out), self.axes, role, fan_in=fan_in,
                            init_power=init_power(role, kernel_init), rows=3 if groups == 1 else 0)
    self.bias = parameter(jnp.zeros(out_channels, jnp.float32), (axis,), role) if use_bias else None

  def weights(self) -> jax.Array:
    """What is convolved with, in float32."""
    return self.kernel[...]

  def __call__(self, x_BHWC: jax.Array) -> jax.Array:
    """[B, H, W, C_in] -> [B, H', W', C_out] in `dtype`."""
    convolve = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(self.stride, self.stride), padding=self.padding,
        feature_group_count=self.groups, dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    if self.groups > 1:
      convolve = mesh_lib.by_rows(convolve)
    y_BHWC = with_gathered(convolve, x_BHWC.astype(self.dtype), self.weights().astype(self.dtype), self.axes)
    return y_BHWC if self.bias is None else y_BHWC + self.bias[...].astype(self.dtype)[None, None, None]
