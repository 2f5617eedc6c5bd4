"""The affine map that every family is built of, with its logical axes, its role and its fans declared."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

Initializer = Callable[[jax.Array, tuple[int, ...], int, int], jax.Array]  # (key, shape, fan_in, fan_out) -> float32


def xavier_uniform(key, shape, fan_in, fan_out):
  """U(-a, a), a = sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16): ViT's attention and MLP kernels."""
  limit = math.sqrt(6 / (fan_in + fan_out))
  return jax.random.uniform(key, shape, jnp.float32, -limit, limit)


def lecun_normal(key, shape, fan_in, fan_out):
  """Truncated normal of variance 1 / fan_in (LeCun et al. 1998, sec. 4.6): ViT's patch embedding (Flax's default)."""
  del fan_out
  std = math.sqrt(1 / fan_in) / 0.87962566103423978  # the deviation that truncation at two sigma leaves
  return jax.random.truncated_normal(key, -2, 2, shape, jnp.float32) * std


def zeros(key, shape, fan_in, fan_out):
  """The logits head: all classes equal at the start (Dosovitskiy et al. 2021, D.1, for fine-tuning; big_vision)."""
  del key, fan_in, fan_out
  return jnp.zeros(shape, jnp.float32)


def tiny_normal(key, shape):
  """N(0, 1e-6^2): the MLP's biases in the original code (Tolstikhin et al. 2021 and Dosovitskiy et al. 2021)."""
  return 1e-6 * jax.random.normal(key, shape, jnp.float32)


def parameter(value: jax.Array, axes: Sequence[str | None], role: str = 'hidden') -> nnx.Param:
  """A parameter with one logical axis name per dimension and its place in the network.

  Args:
    value: float32.
    axes: names that `parallel.rules` maps to mesh axes; None is never split.
    role: 'input' (embeddings), 'hidden', or 'output' (the head): `params_non_embedding` counts the hidden ones.
  """
  assert len(axes) == value.ndim, (axes, value.shape)
  return nnx.Param(value, out_sharding=tuple(axes), role=role)


class Dense(nnx.Module):
  """y = x W + b, contracting the trailing `in_shape` dimensions of x into `out_shape`.

  Fans are given, not guessed from the shape: a fused qkv kernel [D, 3, H, K] is three maps of fan_out H*K each.
  """

  def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], axes: Sequence[str | None], *, rngs: nnx.Rngs,
               role: str = 'hidden', fan_out: int | None = None, kernel_init: Initializer = xavier_uniform,
               bias_init: Callable | None = None, use_bias: bool = True, dtype=jnp.float32):
    in_shape, out_shape = tuple(in_shape), tuple(out_shape)
    fan_in, fan_out = math.prod(in_shape), fan_out or math.prod(out_shape)
    kernel = kernel_init(rngs.params(), in_shape + out_shape, fan_in, fan_out)
    self.kernel = parameter(kernel, axes, role)
    bias = bias_init(rngs.params(), out_shape) if bias_init else jnp.zeros(out_shape, jnp.float32)
    self.bias = parameter(bias, axes[len(in_shape):], role) if use_bias else None
    self.in_ndim, self.dtype = len(in_shape), dtype

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., *in_shape] -> [..., *out_shape] in `dtype`."""
    n = self.in_ndim
    contract = (tuple(range(x.ndim - n, x.ndim)), tuple(range(n)))
    y = jax.lax.dot_general(x.astype(self.dtype), self.kernel[...].astype(self.dtype), (contract, ((), ())))
    if self.bias is not None:
      bias = self.bias[...].astype(self.dtype)
      y = y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
    return y


class LayerNorm(nnx.LayerNorm):
  """Layer normalisation over the last axis (Ba et al. 2016): statistics in float32, result in `dtype`."""

  def __init__(self, width: int, *, rngs: nnx.Rngs, dtype=jnp.float32, epsilon: float = 1e-6):
    axes = {'out_sharding': ('embed',), 'role': 'hidden'}
    super().__init__(width, epsilon=epsilon, dtype=dtype, param_dtype=jnp.float32, rngs=rngs,
                     scale_metadata=axes, bias_metadata=axes)
