"""Optimizers: optax's gradient transformations, with learning rate and weight decay passed to each step.

The two are traced values, so that new values do not recompile and runs that differ only in them can share a program.

For all optimizers but SGD, the entries of an update are about 1 in size before scaling. (Muon's are scaled to Adam's;
Liu et al. 2025, "Muon is scalable for LLM training", sec. 2.2.) So a learning rate or weight decay has about the same
effect with each.
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
from vit_jax.options import option


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """The optimizer and its settings."""
  # AdamW; SGD; Adafactor as modified for ViTs (Zhai et al. 2022, sec. 3.4), whose state is half a copy of the weights;
  # Lion (Chen et al. 2023) with its published betas, which needs a learning rate 3 to 10 times below AdamW's; Muon
  # (Jordan et al. 2024) for the maps inside the network and AdamW for the rest.
  name: Literal['adamw', 'sgd', 'adafactor', 'lion', 'muon'] = 'adamw'
  learning_rate: float = option(1e-3, most=1e19)  # peak; the square of a larger step overflows float32
  # Decoupled (Loshchilov & Hutter 2019) and multiplied by the learning rate, as in optax and PyTorch. (big_vision does
  # not multiply: its lr 1e-3 and wd 1e-4 are weight_decay 0.1 here.) SGD: added to the clipped gradient, as in
  # PyTorch.
  weight_decay: float = 0.0
  beta1: float = option(0.9, below=1)  # AdamW, also within Muon; Adafactor
  beta2: float = option(0.999, below=1)  # AdamW, also within Muon; Adafactor: the upper limit of its increasing decay
  epsilon: float = option(1e-8, least=1e-30, most=1)  # AdamW, also within Muon
  momentum: float = option(0.9, below=1)  # SGD
  nesterov: bool = False  # SGD: the gradient is that after the next step of the momentum
  clip_norm: float | None = option(1.0, above=0, off=0)  # largest global norm of the gradient; 0 or None: not clipped
  # The learning rate of each layer as a multiple of the next one's (`layerwise`).
  layer_decay: float = option(1.0, above=0, most=1)
  # Patterns of parameter names, such as 'head/*'; only these parameters are trained. Empty: all. A batch norm that is
  # frozen normalises with its running statistics, which do not move.
  train_only: tuple[str, ...] = ()
  # (pattern of parameter names, factor) pairs: of the learning rate, which the decay is multiplied with too, and of
  # the weight decay alone. (('text/*', 0.1),) has a text tower learn at a tenth of the rate.
  rates: tuple[tuple[str, float], ...] = ()
  decays: tuple[tuple[str, float], ...] = ()
  # Decay of the moving average of the parameters, which is then evaluated; 0: no average.
  ema_decay: float = option(0.0, below=1)
  ema_warmup: bool = True  # after t steps the average's decay is at most (1 + t) / (10 + t), as in TensorFlow


# Decay of batch norm's statistics if the parameters themselves are evaluated (Ioffe & Szegedy 2015; Goyal et al. 2017).
_STATS_DECAY = 0.9
_LION_BETAS = 0.9, 0.99  # Chen et al. 2023, algorithm 2
_MUON_RMS = 0.2  # root mean square of an update, about that of AdamW (Liu et al. 2025, eq. 4)
_MUON_MOMENTUM = 0.95  # with Nesterov's correction
_LEAST_FACTORED = 128  # Adafactor does not factor the second moments of smaller matrices


def check(config: OptimizerConfig) -> None:
  """Raises UserError for a decay that turns the signs of kernels: each step multiplies them by 1 - rate x decay."""
  for name in ('rates', 'decays'):
    for pattern, factor in getattr(config, name):
      if not 0 <= factor <= 1e6:
        raise UserError(f'optimizer.{name}={pattern!r}, {factor}: the factor must be from 0 to 1,000,000')
  if config.learning_rate * config.weight_decay > 1:
    raise UserError(f'optimizer.weight_decay={config.weight_decay}: must be at most {1 / config.learning_rate:g}, that '
                    'is 1 / optimizer.learning_rate: a larger one turns the signs of kernels at each step')


def transformation(config: OptimizerConfig, factors: dict | None = None, model: PureModel | None = None,
                   decay: Callable[[dict, dict], dict] = lambda grads, params: grads) -> optax.GradientTransformation:
  """The transformation of gradients to a direction, which `step` then scales. It includes clipping.

  Args:
    config: the optimizer.
    factors: as for `step`; the state has the same structure without them.
    model: declares which axes of a parameter form a matrix, for Adafactor and Muon.
    decay: (clipped gradients, parameters) -> gradients with the decay of the parameters added.
  """
  clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
  if factors is not None:
    clip = _scaled(clip, factors, config.name == 'adamw')
  adam = lambda: optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
  rule = {'adamw': adam, 'sgd': lambda: optax.trace(config.momentum, config.nesterov),
          'lion': lambda: optax.scale_by_lion(*_LION_BETAS),
          'adafactor': lambda: _adafactor(config, matrices(model)), 'muon': lambda: _muon(adam(), model)}[config.name]
  return optax.chain(clip, _then(decay, rule()))


def _then(decay, rule):
  """A rule that is given the gradients with the decay in them."""
  return optax.GradientTransformation(
      rule.init, lambda grads, state, params=None: rule.update(decay(grads, params), state, params))


def _scaled(clip, factors, adam):
  """Clips by a norm that does not grow with the model, and passes g / e to Adam to multiply its epsilon by e."""
  times = lambda grads, factor: jax.tree.map(lambda g, f: g * factor(f), grads, factors)

  def update(grads, state, params=None):
    grads, state = clip.update(times(grads, lambda f: math.sqrt(f.learning_rate)), state, params)
    return times(grads, lambda f: 1 / (math.sqrt(f.learning_rate) * (f.epsilon if adam else 1))), state

  return optax.GradientTransformation(clip.init, update)


@dataclasses.dataclass(frozen=True)
class Matrix:
  """The axes of a parameter that are the rows (summed over) and columns of a matrix; other axes enumerate matrices."""
  rows: tuple[int, ...] = ()
  columns: tuple[int, ...] = ()


def matrices(model: PureModel) -> dict:
  """The `Matrix` of each parameter, in a dict like that of the parameters. It is empty if there is no matrix."""

  def one(shape, rows, apart, axes):
    if not rows:
      return Matrix()
    first, rank = int(axes[0] == 'layers'), len(shape.shape)
    lists = (rank + apart,) if apart else ()
    return Matrix(tuple(range(first, first + rows)), tuple(i for i in range(first + rows, rank) if i not in lists))

  declared = (model.param_metadata(name) for name in ('rows', 'apart', 'out_sharding'))
  return jax.tree.map(one, model.param_shapes(), *declared)


def _muon(adam, model):
  """Muon for matrices inside the network; Adam for embeddings, the head and parameters that are not matrices."""
  every = matrices(model)
  inside = jax.tree.map(lambda m, role: bool(m.rows) and role == 'hidden', every, model.param_roles())
  inside = {path for path, flag in traverse_util.flatten_dict(inside).items() if flag}
  dimensions = jax.tree.map(lambda m: optax.contrib.MuonDimensionNumbers(m.rows, m.columns),
                            _those(every, inside.__contains__))

  def scaled(d, m):
    """Scales an update to an RMS of _MUON_RMS; the entries of an orthogonal matrix have 1 / sqrt(longer side)."""
    return d * (_MUON_RMS * math.sqrt(max(math.prod(d.shape[i] for i in axes) for axes in m)))

  of = lambda tree: _like(dimensions, tree)
  scale = optax.stateless(lambda direction, _: jax.tree.map(scaled, direction, of(direction)))
  muon = optax.contrib.scale_by_muon(beta=_MUON_MOMENTUM, weight_dimension_numbers=of)
  return _split(inside.__contains__, optax.chain(muon, scale), adam)


def _split(belongs: Callable, first, second):
  """Applies one transformation to the parameters whose path belongs, and another to the others."""
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
  """A nested dict with only the leaves whose path belongs."""
  flat = traverse_util.flatten_dict(tree)
  return traverse_util.unflatten_dict({path: value for path, value in flat.items() if belongs(path)})


def _like(values, tree):
  """The part of `values` for the leaves of `tree`, which may be a part of the parameters."""
  return _those(values, traverse_util.flatten_dict(tree).__contains__)


def _adafactor(config, matrices):
  """Adafactor as in Zhai et al. 2022, sec. 3.4: factored second moments with capped decay, and momentum in bfloat16.

  Unlike in Shazeer & Stern 2018, updates are not clipped and the learning rate is not relative to the parameters.
  """
  decay = lambda step, exponent: jnp.minimum(config.beta2, 1 - (step + 1.0) ** -exponent)
  second = optax.scale_by_factored_rms(min_dim_size_to_factor=_LEAST_FACTORED, decay_rate_fn=decay)
  momentum = optax.ema(config.beta1, debias=False, accumulator_dtype=jnp.bfloat16)
  return optax.chain(_as_matrices(second, matrices), momentum)


def _as_matrices(rule, matrices):
  """Applies a rule to large matrices in the shape [.., rows, columns], even if a parameter has an axis for heads."""

  def order(p, m):
    """The axes in the order [lists, rows, columns], and that shape; None if the parameter is not reshaped."""
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
  """A mask of the parameters that decay: kernels, by name. Biases, norm scales, embeddings and layer scales do not.

  (`ndim > 1` would also select norm scales that are stacked over layers.)
  """
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def step(config: OptimizerConfig, grads: dict, opt_state: Any, params: dict, learning_rate: jax.Array,
         weight_decay: jax.Array, factors: dict | None = None, model: PureModel | None = None,
         rates: dict | None = None, decays: dict | None = None) -> tuple[dict, Any]:
  """Makes one update and returns (params, opt_state).

  Args:
    config: the optimizer.
    grads: the gradients.
    opt_state: the state of `transformation`.
    params: the parameters.
    learning_rate, weight_decay: float32 scalars.
    factors: multiples of these for each parameter (`parametrisation.factors`); None: all 1.
    model: as for `transformation`.
    rates: factors of each parameter's whole update, including decay (`layerwise.rates`); None: all 1.
    decays: factors of each parameter's weight decay (`trainable.scaled`); None: all 1.
  """
  mask = decayed(params)
  if decays is not None:
    mask = jax.tree.map(lambda m, factor: m * factor, mask, decays)
  each = lambda name: jax.tree.map(lambda _, f: getattr(f, name), params, factors) if factors else (
      jax.tree.map(lambda _: 1.0, params))
  add_decay = lambda tree: jax.tree.map(lambda t, p, m, f: t + weight_decay * (f * m) * p if m else t, tree, params,
                                        mask, each('weight_decay'))
  coupled = config.name == 'sgd'  # the decay of all others is decoupled from the gradient
  rule = transformation(config, factors, model, *([lambda grads, _: add_decay(grads)] if coupled else []))
  with jax.numpy_dtype_promotion('standard'):  # optax's Adam raises a float to an integer power
    direction, opt_state = rule.update(grads, opt_state, params)
  if not coupled:
    direction = add_decay(direction)
  move = lambda p, d, f: p - learning_rate * f * d
  if rates is not None:
    direction = jax.tree.map(jnp.multiply, direction, rates)
  return jax.tree.map(move, params, direction, each('learning_rate')), opt_state


def average_stats(config: OptimizerConfig, stats: dict, batch_stats: dict, step: jax.Array) -> dict:
  """The moving average of batch norm's statistics, which evaluation uses.

  If the moving average of the parameters is evaluated, the statistics are averaged with the same weights: the
  statistics of each batch count as much as the parameters with which they were measured. Those entered their average
  one update earlier, so the decay is that of the step before. (There are no statistics of the newest parameters yet.)
  """
  if not stats:
    return stats
  if config.ema_decay:
    return moving_average(stats, batch_stats, config.ema_decay, step - 1, config.ema_warmup)
  return moving_average(stats, batch_stats, _STATS_DECAY, step)


def moving_average(ema: dict, params: dict, decay: float, step: jax.Array, warmup: bool = True) -> dict:
  """The EMA of the parameters after `step` updates; see `OptimizerConfig.ema_warmup`."""
  t = jnp.asarray(step, jnp.float32)
  rate = 1 - (jnp.minimum(decay, (1 + t) / (10 + t)) if warmup else jnp.float32(decay))
  return jax.tree.map(lambda e, p: e + rate * (p - e), ema, params)
