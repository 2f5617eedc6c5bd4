"""Normalisation: over the channels of a place (layer norm), or also over places (group) and the batch (batch)."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers.dense import parameter


class LayerNorm(nnx.Module):
  """Over the last axis (Ba et al. 2016): statistics in float32 whatever x is, result in `dtype`.

  The epsilon of 1e-6 is the original code's. (nnx.LayerNorm mixes types implicitly, which the tests forbid.)
  """

  def __init__(self, width: int, *, axis: str | None = 'embed', zero_scale: bool = False, dtype=jnp.float32,
               epsilon: float = 1e-6):
    """`zero_scale`: gives zeros at the start, so that a residual branch that it ends begins as nothing."""
    self.scale = parameter(jnp.full(width, 0.0 if zero_scale else 1.0, jnp.float32), (axis,))
    self.bias = parameter(jnp.zeros(width, jnp.float32), (axis,))
    self.dtype, self.epsilon = dtype, epsilon

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., D]."""
    x = x.astype(jnp.float32)
    broadcast = (1,) * (x.ndim - 1) + (-1,)
    x = x - x.mean(axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
    return (x * self.scale[...].reshape(broadcast) + self.bias[...].reshape(broadcast)).astype(self.dtype)


class GroupNorm(nnx.Module):
  """Over the places of an example and the channels of a group (Wu & He 2018): statistics in float32, result in `dtype`.

  32 groups, or one for each of fewer channels.
  """

  def __init__(self, width: int, *, zero_scale: bool = False, dtype=jnp.float32, epsilon: float = 1e-6):
    self.scale = parameter(jnp.full(width, 0.0 if zero_scale else 1.0, jnp.float32), ('embed',))
    self.bias = parameter(jnp.zeros(width, jnp.float32), ('embed',))
    self.groups, self.dtype, self.epsilon = min(32, width), dtype, epsilon

  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, .., D] -> [B, .., D]."""
    grouped = x.astype(jnp.float32).reshape(x.shape[0], -1, self.groups, x.shape[-1] // self.groups)
    grouped = grouped - grouped.mean(axis=(1, 3), keepdims=True)
    grouped = grouped * jax.lax.rsqrt(jnp.mean(grouped * grouped, axis=(1, 3), keepdims=True) + self.epsilon)
    broadcast = (1,) * (x.ndim - 1) + (-1,)
    normal = grouped.reshape(x.shape) * self.scale[...].reshape(broadcast) + self.bias[...].reshape(broadcast)
    return normal.astype(self.dtype)


class BatchNorm(nnx.Module):
  """Over all axes but the last (Ioffe & Szegedy 2015): statistics in float32 whatever x is, result in `dtype`.

  In training x is normalised by its own mean and variance. Those are of the whole batch, however a mesh splits it
  ("cross-replica"), but with gradient accumulation of one micro-batch; rows of weight 0 are in them. The module then
  holds them in place of the ones that it was given. Evaluation normalises with their moving average, which the training
  step takes, so that it can fit the parameters' average. The variance is the biased one, in training and in evaluation.

  A module whose `frozen` is set does in training what it does in evaluation (`models.PureModel.resting`).
  """
  frozen = False

  def __init__(self, width: int, *, axis: str | None = 'embed', zero_scale: bool = False, dtype=jnp.float32,
               epsilon: float = 1e-5):
    """`zero_scale`: gives zeros at the start, so that a residual branch that it ends begins as nothing."""
    self.scale = parameter(jnp.full(width, 0.0 if zero_scale else 1.0, jnp.float32), (axis,))
    self.bias = parameter(jnp.zeros(width, jnp.float32), (axis,))
    self.mean, self.var = nnx.BatchStat(jnp.zeros(width, jnp.float32)), nnx.BatchStat(jnp.ones(width, jnp.float32))
    self.dtype, self.epsilon = dtype, epsilon

  def __call__(self, x: jax.Array, training: bool) -> jax.Array:
    """[..., D] -> [..., D]."""
    x = x.astype(jnp.float32)
    broadcast = lambda v: v.reshape((1,) * (x.ndim - 1) + (-1,))
    if training and not self.frozen:
      axes = tuple(range(x.ndim - 1))
      mean = x.mean(axes)
      var = jnp.mean(jnp.square(x - broadcast(mean)), axes)
      self.mean[...], self.var[...] = mean, var
    else:
      mean, var = self.mean[...], self.var[...]
    scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
    return ((x - broadcast(mean)) * broadcast(scale) + broadcast(self.bias[...])).astype(self.dtype)
