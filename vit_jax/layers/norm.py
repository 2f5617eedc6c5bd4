"""Layer normalisation."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers.dense import parameter


class LayerNorm(nnx.Module):
  """Over the last axis (Ba et al. 2016): statistics in float32 whatever x is, result in `dtype`.

  The epsilon of 1e-6 is the original code's. (nnx.LayerNorm mixes types implicitly, which the tests forbid.)
  """

  def __init__(self, width: int, *, axis: str | None = 'embed', dtype=jnp.float32, epsilon: float = 1e-6):
    self.scale = parameter(jnp.ones(width, jnp.float32), (axis,))
    self.bias = parameter(jnp.zeros(width, jnp.float32), (axis,))
    self.dtype, self.epsilon = dtype, epsilon

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., D]."""
    x = x.astype(jnp.float32)
    broadcast = (1,) * (x.ndim - 1) + (-1,)
    x = x - x.mean(axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    return (x * self.scale[...].reshape(broadcast) + self.bias[...].reshape(broadcast)).astype(self.dtype)
