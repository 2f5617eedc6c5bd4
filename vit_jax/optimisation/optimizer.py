"""Optimisers: optax's gradient transformations, with learning rate and weight decay given at each step.

The two arrive as traced values, so that no value recompiles and runs that differ only in them can share a program.

All but SGD give a direction whose entries are about 1 in size (Muon's are scaled to Adam's, Liu et al. 2025, "Muon is
scalable for LLM training", sec. 2.2), so that one learning rate and one weight decay mean about the same to each.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from vit_jax.errors import UserError
from vit_jax.models import PureModel


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  # AdamW; SGD; Adafactor as changed for ViTs (Zhai et al. 2022, sec. 3.4), whose state is half a copy of the weights;
  # Lion (Chen et al. 2023) with its published betas, which wants a learning rate 3 to 10 times below AdamW's; Muon
  # (Jordan et al. 2024) for the maps inside the network, AdamW for the rest.
  name: Literal['adamw', 'sgd', 'adafactor', 'lion', 'muon'] = 'adamw'
  learning_rate: float = 1e-3  # peak
  # Decoupled (Loshchilov & Hutter 2019) as in optax and PyTorch, where the learning rate multiplies it. (big_vision's
  # wd does not: its lr 1e-3, wd 1e-4 is weight_decay 0.1 here.) SGD: added to the clipped gradient, as in PyTorch.
  weight_decay: float = 0.0
  beta1: float = 0.9  # AdamW, also Muon's; Adafactor
  beta2: float = 0.999  # AdamW, also Muon's; Adafactor: the most that its rising decay comes to
  epsilon: float = 1e-8  # AdamW, also Muon's
  momentum: float = 0.9  # SGD
  clip_norm: float | None = 1.0  # global norm of the gradient; 0 or None: not clipped
  layer_decay: float = 1.0  # the learning rate of each layer as a multiple of the next one's (`layerwise`)
  # Patterns of names of parameters, such as 'head/*': only these are trained. Empty: all.
  train_only: tuple[str, ...] = ()
  ema_decay: float = 0.0  # of the parameters' moving average, which is then what is evaluated; 0: none


# Of batch norm's statistics where the parameters themselves are evaluated (Ioffe & Szegedy 2015; Goyal et al. 2017).
_STATS_DECAY = 0.9
_LION_BETAS = 0.9, 0.99  # Chen et al. 2023, algorithm 2
_MUON_RMS = 0.2  # of an update's entries, about AdamW's (Liu et al. 2025, eq. 4)
_MUON_MOMENTUM = 0.95  # with Nesterov's correction
_LEAST_FACTORED = 128  # Adafactor keeps smaller matrices' second moments whole


def check(config: OptimizerConfig) -> None:
  """Raises UserError for values that cannot be meant."""
  for name in ('learning_rate', 'weight_decay'):
    if getattr(config, name) < 0:
      raise UserError(f'optimizer.{name}={getattr(config, name)}: must not be negative')
  if not 0 < config.layer_decay <= 1:
    raise UserError(f'optimizer.layer_decay={config.layer_decay}: must be above 0, at most 1 (no decay)')
  for name in ('beta1', 'beta2', 'momentum', 'ema_decay'):
    if not 0 <= getattr(config, name) < 1:
      raise UserError(f'optimizer.{name}={getattr(config, name)}: must be in [0, 1)')


def transformation(config: OptimizerConfig, factors: dict | None = None, model: PureModel | None = None,
                   decay: Callable[[dict, dict], dict] = lambda grads, params: grads) -> optax.GradientTransformation:
  """Clipped gradients to a direction; `step` scales it. `factors` as for `step`; the state is the same without.

  Which axes of a parameter are a matrix's, for Adafactor and Muon, is what the `model` declares. `decay` adds to the
  clipped gradients what the parameters decay by: (gradients, parameters) -> gradients.
  """
  clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
  if factors is not None:
    clip = _scaled(clip, factors, config.name == 'adamw')
  adam = lambda: optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
  rule = {'adamw': adam, 'sgd': lambda: optax.trace(config.momentum), 'lion': lambda: optax.scale_by_lion(*_LION_BETAS),
          'adafactor': lambda: _adafactor(config, matrices(model)), 'muon': lambda: _muon(adam(), model)}[config.name]
  return optax.chain(clip, _then(decay, rule()))


def _then(decay, rule):
  """A rule that is given the gradients with the decay in them."""
  return optax.GradientTransformation(
      rule.init, lambda grads, state, params=None: rule.update(decay(grads, params), state, params))


def _scaled(clip, factors, adam):
  """Clips in the norm that does not grow with the model, and gives Adam g / e for an epsilon of e times its own."""
  times = lambda grads, factor: jax.tree.map(lambda g, f: g * factor(f), grads, factors)

  def update(grads, state, params=None):
    grads, state = clip.update(times(grads, lambda f: math.sqrt(f.learning_rate)), state, params)
    return times(grads, lambda f: 1 / (math.sqrt(f.learning_rate) * (f.epsilon if adam else 1))), state

  return optax.GradientTransformation(clip.init, update)


@dataclasses.dataclass(frozen=True)
class Matrix:
  """Which axes of a parameter are the rows (summed over) and the columns of a matrix; others list matrices."""
  rows: tuple[int, ...] = ()
  columns: tuple[int, ...] = ()


def matrices(model: PureModel) -> dict:
  """The `Matrix` of each parameter, without rows where it is none: a dict like that of the parameters."""

  def one(shape, rows, apart, axes):
    if not rows:
      return Matrix()
    first, rank = int(axes[0] == 'layers'), len(shape.shape)
    lists = (rank + apart,) if apart else ()
    return Matrix(tuple(range(first, first + rows)), tuple(i for i in range(first + rows, rank) if i not in lists))

  declared = (model.param_metadata(name) for name in ('rows', 'apart', 'out_sharding'))
  return jax.tree.map(one, model.param_shapes(), *declared)


def _muon(adam, model):
  """Muon where a matrix lies inside the network: not for embeddings and the head, nor for what is no matrix."""
  every = matrices(model)
  inside = jax.tree.map(lambda m, role: bool(m.rows) and role == 'hidden', every, model.param_roles())
  inside = {path for path, flag in traverse_util.flatten_dict(inside).items() if flag}
  dimensions = jax.tree.map(lambda m: optax.contrib.MuonDimensionNumbers(m.rows, m.columns),
                            _those(every, inside.__contains__))

  def scaled(d, m):
    """Orthogonal, an update's entries are 1 / sqrt(its longer side) in size."""
    return d * (_MUON_RMS * math.sqrt(max(math.prod(d.shape[i] for i in axes) for axes in m)))

  of = lambda tree: _like(dimensions, tree)
  scale = optax.stateless(lambda direction, _: jax.tree.map(scaled, direction, of(direction)))
  muon = optax.contrib.scale_by_muon(beta=_MUON_MOMENTUM, weight_dimension_numbers=of)
  return _split(inside.__contains__, optax.chain(muon, scale), adam)


def _split(belongs: Callable, first, second):
  """One transformation for the parameters whose path belongs, another for the others."""
  parts = lambda tree: (_those(tree, belongs), _those(tree, lambda path: not belongs(path)))

  def init(params):
    return tuple(rule.init(part) for rule, part in zip((first, second), parts(params)))

  def update(grads, state, params=None):
    done = [rule.update(part, old) for rule, part, old in zip((first, second), parts(grads), state)]
    flat = {path: value for direction, _ in done for path, value in traverse_util.flatten_dict(direction).items()}
    order = traverse_util.flatten_dict(grads)
    return traverse_util.unflatten_dict({path: flat[path] for path in order}), tuple(state for _, state in done)

  return optax.GradientTransformation(init, update)


def _those(tree, belongs):
  """A nested dict with those leaves alone whose path belongs."""
  flat = traverse_util.flatten_dict(tree)
  return traverse_util.unflatten_dict({path: value for path, value in flat.items() if belongs(path)})


def _like(values, tree):
  """What `values` has for the leaves of `tree`, which may be some of the parameters."""
  return _those(values, traverse_util.flatten_dict(tree).__contains__)


def _adafactor(config, matrices):
  """Zhai et al. 2022, sec. 3.4: second moments factored, their decay capped; momentum, in bfloat16; no clipping of
  updates, no learning rate relative to the parameters (Shazeer & Stern 2018 have both)."""
  decay = lambda step, exponent: jnp.minimum(config.beta2, 1 - (step + 1.0) ** -exponent)
  second = optax.scale_by_factored_rms(min_dim_size_to_factor=_LEAST_FACTORED, decay_rate_fn=decay)
  momentum = optax.ema(config.beta1, debias=False, accumulator_dtype=jnp.bfloat16)
  return optax.chain(_as_matrices(second, matrices), momentum)


def _as_matrices(rule, matrices):
  """Shows a rule the large matrices as such: [.., rows, columns], where a parameter has an axis for heads."""

  def order(p, m):
    """The axes as [lists, rows, columns], and that shape; None where the parameter stays as it is."""
    rows, columns = (math.prod(p.shape[i] for i in axes) for axes in (m.rows, m.columns))
    if min(rows, columns) < _LEAST_FACTORED:
      return None
    lists = [i for i in range(p.ndim) if i not in m.rows + m.columns]
    return (*lists, *m.rows, *m.columns), (*(p.shape[i] for i in lists), rows, columns)

  def seen(p, m):
    return p if (to := order(p, m)) is None else p.transpose(to[0]).reshape(to[1])

  def back(d, p, m):
    if (to := order(p, m)) is None:
      return d
    axes = to[0]
    return d.reshape([p.shape[i] for i in axes]).transpose(sorted(range(p.ndim), key=axes.__getitem__))

  show = lambda tree: jax.tree.map(seen, tree, _like(matrices, tree))

  def update(grads, state, params=None):
    direction, state = rule.update(show(grads), state, show(params))
    return jax.tree.map(back, direction, grads, _like(matrices, grads)), state

  return optax.GradientTransformation(lambda params: rule.init(show(params)), update)


def decayed(params: dict) -> dict:
  """Which parameters decay: kernels, by name. Biases, norm scales, embeddings and layer scales do not.

  (`ndim > 1` would catch norm scales that are stacked over layers.)
  """
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def step(config: OptimizerConfig, grads: dict, opt_state: Any, params: dict, learning_rate: jax.Array,
         weight_decay: jax.Array, factors: dict | None = None, model: PureModel | None = None,
         rates: dict | None = None) -> tuple[dict, Any]:
  """One update: (params, opt_state).

  Args:
    learning_rate, weight_decay: float32 scalars.
    factors: what they are multiplied by for each parameter (`parametrisation.factors`); None: all 1.
    model: as for `transformation`.
    rates: arrays that each parameter's update, decay and all, is multiplied by (`layerwise.rates`); None: all 1.
  """
  mask = decayed(params)
  each = lambda name: jax.tree.map(lambda _, f: getattr(f, name), params, factors) if factors else (
      jax.tree.map(lambda _: 1.0, params))
  add_decay = lambda tree: jax.tree.map(lambda t, p, m, f: t + weight_decay * f * p if m else t, tree, params, mask,
                                        each('weight_decay'))
  coupled = config.name == 'sgd'  # all others decay apart from the gradient's scale
  rule = transformation(config, factors, model, *([lambda grads, _: add_decay(grads)] if coupled else []))
  with jax.numpy_dtype_promotion('standard'):  # optax's Adam raises a float to its integer count
    direction, opt_state = rule.update(grads, opt_state, params)
  if not coupled:
    direction = add_decay(direction)
  move = lambda p, d, f: p - learning_rate * f * d
  if rates is not None:
    direction = jax.tree.map(jnp.multiply, direction, rates)
  return jax.tree.map(move, params, direction, each('learning_rate')), opt_state


def average_stats(config: OptimizerConfig, stats: dict, batch_stats: dict, step: jax.Array) -> dict:
  """The moving average of batch norm's statistics: what evaluation normalises with.

  Where the parameters' moving average is what is evaluated, the statistics are averaged with the same weights, so that
  the two fit: each batch's statistics count as much as the parameters that they were measured with. Those entered
  their average one update earlier, so the decay is that of the step before. (The newest parameters have no statistics
  yet.)
  """
  if not stats:
    return stats
  if config.ema_decay:
    return moving_average(stats, batch_stats, config.ema_decay, step - 1)
  return moving_average(stats, batch_stats, _STATS_DECAY, step)


def moving_average(ema: dict, params: dict, decay: float, step: jax.Array) -> dict:
  """EMA of the parameters after `step` updates; the decay warms up as (1 + t) / (10 + t), as in TensorFlow's."""
  t = jnp.asarray(step, jnp.float32)
  rate = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
  return jax.tree.map(lambda e, p: e + rate * (p - e), ema, params)
