"""Optimisers: optax's gradient transformations, with learning rate and weight decay given at each step.

The two arrive as traced values, so that no value recompiles and runs that differ only in them can share a program.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from vit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  name: Literal['adamw', 'sgd'] = 'adamw'
  learning_rate: float = 1e-3  # peak
  # AdamW: decoupled (Loshchilov & Hutter 2019) as in optax and PyTorch, where the learning rate multiplies it.
  # (big_vision's wd does not: its lr 1e-3, wd 1e-4 is weight_decay 0.1 here.) SGD: added to the gradient.
  weight_decay: float = 0.0
  beta1: float = 0.9  # AdamW
  beta2: float = 0.999  # AdamW
  epsilon: float = 1e-8  # AdamW
  momentum: float = 0.9  # SGD
  clip_norm: float | None = 1.0  # global norm of the gradient; 0 or None: not clipped
  ema_decay: float = 0.0  # of the parameters' moving average, which is then what is evaluated; 0: none


# Of batch norm's statistics where the parameters themselves are evaluated (Ioffe & Szegedy 2015; Goyal et al. 2017).
_STATS_DECAY = 0.9


def check(config: OptimizerConfig) -> None:
  """Raises UserError for values that cannot be meant."""
  for name in ('learning_rate', 'weight_decay'):
    if getattr(config, name) < 0:
      raise UserError(f'optimizer.{name}={getattr(config, name)}: must not be negative')
  for name in ('beta1', 'beta2', 'momentum', 'ema_decay'):
    if not 0 <= getattr(config, name) < 1:
      raise UserError(f'optimizer.{name}={getattr(config, name)}: must be in [0, 1)')


def transformation(config: OptimizerConfig, factors: dict | None = None) -> optax.GradientTransformation:
  """Clipped gradients to a direction; `step` scales it. `factors` as for `step`; the state is the same without."""
  clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
  if factors is not None:
    clip = _scaled(clip, factors, config.name == 'adamw')
  if config.name == 'adamw':
    return optax.chain(clip, optax.scale_by_adam(config.beta1, config.beta2, config.epsilon))
  return optax.chain(clip, optax.trace(config.momentum))


def _scaled(clip, factors, adam):
  """Clips in the norm that does not grow with the model, and gives Adam g / e for an epsilon of e times its own."""
  times = lambda grads, factor: jax.tree.map(lambda g, f: g * factor(f), grads, factors)

  def update(grads, state, params=None):
    grads, state = clip.update(times(grads, lambda f: math.sqrt(f.learning_rate)), state, params)
    return times(grads, lambda f: 1 / (math.sqrt(f.learning_rate) * (f.epsilon if adam else 1))), state

  return optax.GradientTransformation(clip.init, update)


def decayed(params: dict) -> dict:
  """Which parameters decay: kernels, by name. Biases, norm scales, embeddings and layer scales do not.

  (`ndim > 1` would catch norm scales that are stacked over layers.)
  """
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def step(config: OptimizerConfig, grads: dict, opt_state: Any, params: dict, learning_rate: jax.Array,
         weight_decay: jax.Array, factors: dict | None = None) -> tuple[dict, Any]:
  """One update: (params, opt_state).

  Args:
    learning_rate, weight_decay: float32 scalars.
    factors: what they are multiplied by for each parameter (`parametrisation.factors`); None: all 1.
  """
  mask = decayed(params)
  each = lambda name: jax.tree.map(lambda _, f: getattr(f, name), params, factors) if factors else (
      jax.tree.map(lambda _: 1.0, params))
  add_decay = lambda tree: jax.tree.map(lambda t, p, m, f: t + weight_decay * f * p if m else t, tree, params, mask,
                                        each('weight_decay'))
  if config.name == 'sgd':
    grads = add_decay(grads)
  with jax.numpy_dtype_promotion('standard'):  # optax's Adam raises a float to its integer count
    direction, opt_state = transformation(config, factors).update(grads, opt_state, params)
  if config.name == 'adamw':
    direction = add_decay(direction)
  move = lambda p, d, f: p - learning_rate * f * d
  return jax.tree.map(move, params, direction, each('learning_rate')), opt_state


def average_stats(config: OptimizerConfig, stats: dict, batch_stats: dict, step: jax.Array) -> dict:
  """The moving average of batch norm's statistics: what evaluation normalises with.

  Where the parameters' moving average is what is evaluated, the statistics are averaged with the same weights, so that
  the two fit: each batch's statistics count as much as the parameters that they were measured with.
  """
  return moving_average(stats, batch_stats, config.ema_decay or _STATS_DECAY, step) if stats else stats


def moving_average(ema: dict, params: dict, decay: float, step: jax.Array) -> dict:
  """EMA of the parameters after `step` updates; the decay warms up as (1 + t) / (10 + t), as in TensorFlow's."""
  t = jnp.asarray(step, jnp.float32)
  rate = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
  return jax.tree.map(lambda e, p: e + rate * (p - e), ema, params)
