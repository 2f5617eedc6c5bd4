"""Optimisers: optax's gradient transformations, with learning rate and weight decay given at each step.

The two arrive as traced values, so that no value recompiles and runs that differ only in them can share a program.
"""

import dataclasses
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


def check(config: OptimizerConfig) -> None:
  """Raises UserError for values that cannot be meant."""
  for name in ('learning_rate', 'weight_decay'):
    if getattr(config, name) < 0:
      raise UserError(f'optimizer.{name}={getattr(config, name)}: must not be negative')
  for name in ('beta1', 'beta2', 'momentum', 'ema_decay'):
    if not 0 <= getattr(config, name) < 1:
      raise UserError(f'optimizer.{name}={getattr(config, name)}: must be in [0, 1)')


def transformation(config: OptimizerConfig) -> optax.GradientTransformation:
  """Clipped gradients to a direction; `step` scales it."""
  clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
  if config.name == 'adamw':
    return optax.chain(clip, optax.scale_by_adam(config.beta1, config.beta2, config.epsilon))
  return optax.chain(clip, optax.trace(config.momentum))


def decayed(params: dict) -> dict:
  """Which parameters decay: kernels, by name. Biases, norm scales, embeddings and layer scales do not.

  (`ndim > 1` would catch norm scales that are stacked over layers.)
  """
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def step(config: OptimizerConfig, grads: dict, opt_state: Any, params: dict, learning_rate: jax.Array,
         weight_decay: jax.Array) -> tuple[dict, Any]:
  """One update: (params, opt_state). `learning_rate` and `weight_decay` are float32 scalars."""
  mask = decayed(params)
  add_decay = lambda tree: jax.tree.map(lambda t, p, m: t + weight_decay * p if m else t, tree, params, mask)
  if config.name == 'sgd':
    grads = add_decay(grads)
  with jax.numpy_dtype_promotion('standard'):  # optax's Adam raises a float to its integer count
    direction, opt_state = transformation(config).update(grads, opt_state, params)
  if config.name == 'adamw':
    direction = add_decay(direction)
  return jax.tree.map(lambda p, d: p - learning_rate * d, params, direction), opt_state


def moving_average(ema: dict, params: dict, decay: float, step: jax.Array) -> dict:
  """EMA of the parameters after `step` updates; the decay warms up as (1 + t) / (10 + t), as in TensorFlow's."""
  t = jnp.asarray(step, jnp.float32)
  rate = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
  return jax.tree.map(lambda e, p: e + rate * (p - e), ema, params)
