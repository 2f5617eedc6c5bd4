"""Dropout and stochastic depth, keyed by example.

There is one key an example, made from (seed, step, global row): the noise of an example does not depend on how the
batch is split over devices, processes or micro-batches.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.parallel import blocks


def fold(keys_B: jax.Array | None, data) -> jax.Array | None:
  """Folds `data` (a layer or site number) into each example's key; None (no noise) stays None."""
  return None if keys_B is None else jax.vmap(lambda key: jax.random.fold_in(key, data))(keys_B)


def layers(depth: int, drop_path: float) -> dict[str, np.ndarray]:
  """What the noise of each layer of a stack needs: its 'index', to be folded into keys, and its rate of 'drop_path'.

  Rates rise linearly from 0 at the first layer (Huang et al. 2016, sec. 3). Without any, 'drop_path' is left out.
  """
  rates = {'drop_path': np.linspace(0, drop_path, depth, dtype=np.float32)} if drop_path else {}
  return {'index': np.arange(depth), **rates}


def dropout(x: jax.Array, rate: float, keys_B: jax.Array | None, last: str | None = None) -> jax.Array:
  """Zeroes elements of x [B, ...] with probability `rate`, scaling the rest (Srivastava et al. 2014).

  `last` is the logical name of the last axis: a device that has only a part of it takes its part of the noise.
  """
  if keys_B is None or rate == 0:
    return x
  shape = (*x.shape[1:-1], x.shape[-1] * blocks.num_parts(last))
  keep = blocks.own_part(jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, shape))(keys_B), last)
  return jnp.where(keep, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


def drop_path(x: jax.Array, rate: jax.Array | float, keys_B: jax.Array | None) -> jax.Array:
  """Zeroes the whole residual branch x [B, ...] of an example with probability `rate` (Huang et al. 2016)."""
  if keys_B is None:
    return x
  rate = jnp.asarray(rate, jnp.float32)
  scale_B = jnp.where(jax.vmap(jax.random.uniform)(keys_B) >= rate, 1 / (1 - rate), 0.0)
  return x * scale_B.astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1))
