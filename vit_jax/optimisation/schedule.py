"""The length of a run, and the schedule of its learning rate."""

import dataclasses
import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from vit_jax.errors import UserError
from vit_jax.options import option

MOST_STEPS = 2**31 - 1  # a step is counted as int32
_LENGTHS = ('steps', 'epochs', 'examples', 'flops')


@dataclasses.dataclass(frozen=True)
class LengthConfig:
  """The length of a run. Exactly one of the first four must be given; 0 counts as not given."""
  steps: int | None = None
  epochs: float | None = None  # over the training subset
  examples: int | None = option(None, most=2**63 - 1)
  flops: float | None = None  # training FLOPs (`cost.flops`)
  least_steps: int = 0  # of a length in epochs, however few the pictures are


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
  """The learning rate as a multiple of its peak: a linear warm-up, then the named schedule."""
  name: Literal['cosine', 'linear', 'rsqrt', 'wsd', 'constant', 'step'] = 'cosine'
  warmup_steps: int = 0
  warmup_from: float = option(0.0, most=1)  # the multiple at which warm-up begins
  final: float = option(0.0, most=1)  # cosine and linear: the multiple at the end
  # rsqrt and wsd: fraction of all steps with a linear decay to 0 at the end.
  cooldown_fraction: float = option(0.3, most=1)
  # rsqrt falls as 1 / sqrt(1 + t / timescale) after warm-up (Zhai et al. 2022).
  timescale: float = option(10_000.0, least=1)
  # step: the fractions of all steps at which the rate falls to a tenth (He et al. 2016: after 30, 60 and 80 of 90
  # epochs).
  drops: tuple[float, ...] = option((), above=0, below=1)


def check_length(length: LengthConfig) -> tuple[str, int | float]:
  """The name and the value of the one length that is given; raises UserError for none or several."""
  given = {name: value for name in _LENGTHS if (value := getattr(length, name))}
  if len(given) != 1:
    shown = ', '.join(f'{key}={value}' for key, value in given.items()) or 'none'
    clear = f'; switch one off with --config.train.{list(given)[-1]}=0' if given else ''
    raise UserError(f'train: give exactly one of steps, epochs, examples, flops (given: {shown}){clear}')
  return next(iter(given.items()))


def num_steps(length: LengthConfig, batch_size: int, num_examples: int, flops_per_example: float) -> int:
  """The number of steps of a run, rounded up to whole batches.

  Raises:
    UserError: no length or several are given, or it is not positive.
  """
  key, value = check_length(length)
  examples = {'steps': batch_size, 'epochs': num_examples, 'examples': 1, 'flops': 1 / flops_per_example}[key] * value
  steps = math.ceil(round(examples / batch_size, 6))  # rounded first: 0.1 epochs of 1280 are 1 batch of 128, not 2
  if key == 'epochs':
    steps = max(steps, length.least_steps)
  if not 1 <= steps <= MOST_STEPS:
    raise UserError(f'train.{key}={value}: that is {steps:,} steps; must be from 1 to {MOST_STEPS:,} of them')
  return steps


def check(config: ScheduleConfig, steps: int) -> None:
  """Raises UserError where the warm-up does not fit into the run, and for options of another schedule."""
  if (config.name == 'step') != bool(config.drops):
    raise UserError(f'schedule.drops={config.drops}: are for schedule.name=step, which needs some, such as '
                    f'(0.333, 0.667, 0.889); the name is {config.name}')
  if config.warmup_from and not config.warmup_steps:
    raise UserError(f'schedule.warmup_from={config.warmup_from}: there is no warm-up; set schedule.warmup_steps')
  if config.final and config.name not in ('cosine', 'linear'):
    raise UserError(f'schedule.final={config.final}: schedule.name={config.name} has its own end; it is for cosine and '
                    'linear')
  if config.warmup_steps >= steps:
    raise UserError(f'schedule.warmup_steps={config.warmup_steps}: must be below the {steps} steps of the run')


class Length(NamedTuple):
  """The part of a schedule that depends on the run's length. If traced, runs of all lengths share one program."""
  steps: int | jax.Array
  cooldown: int | jax.Array  # the number of last steps in which the rate falls to zero; 0: none


def length(config: ScheduleConfig, steps: int) -> Length:
  """The `Length` of a run of `steps` steps; only 'wsd' and 'rsqrt' use the cooldown."""
  return Length(steps, math.ceil(config.cooldown_fraction * steps))


def _from_one(final, falling):
  """What falls from 1 to 0 as what falls from 1 to `final`."""
  return final + (1 - final) * falling if final else falling


def multiplier(config: ScheduleConfig, steps: int | Length, step: jax.Array | int, numpy=jnp) -> jax.Array:
  """The learning rate at `step` (0-based) as a multiple of its peak, float32, in a run of `steps`.

  'wsd' is warm-up, stable, decay (Zhai et al. 2022; Haegele et al. 2024); the stable part does not depend on `steps`.
  `numpy` is the array module: with NumPy instead of jax.numpy, the host computes the result and nothing is compiled.
  """
  steps, cooldown = steps if isinstance(steps, Length) else length(config, steps)
  t, steps, cooldown = (numpy.asarray(n, numpy.float32) for n in (step, steps, cooldown))
  warmup = numpy.minimum(1.0, (t + 1) / max(config.warmup_steps, 1)) if config.warmup_steps else numpy.ones_like(t)
  warmup = _from_one(config.warmup_from, warmup)
  after = numpy.maximum(t - config.warmup_steps, 0)
  progress = numpy.minimum(after / numpy.maximum(steps - config.warmup_steps, 1), 1)
  if config.name == 'cosine':
    return warmup * _from_one(config.final, 0.5 * (1 + numpy.cos(numpy.pi * progress)))
  if config.name == 'linear':
    return warmup * _from_one(config.final, 1 - progress)
  if config.name == 'constant':
    return warmup
  if config.name == 'step':
    for drop in config.drops:
      warmup = warmup * numpy.where(t >= numpy.ceil(numpy.float32(drop) * steps), numpy.float32(0.1), 1)
    return warmup
  decay = numpy.where(cooldown > 0, numpy.minimum(1.0, (steps - t) / numpy.maximum(cooldown, 1)), 1.0)
  if config.name == 'rsqrt':
    return warmup * decay / numpy.sqrt(1 + after / config.timescale)
  return warmup * decay
