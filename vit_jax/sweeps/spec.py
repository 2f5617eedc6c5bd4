"""The specification of a sweep: a recipe and a list of overrides, one dict per run.

Lists of choices, such as [{'model.width': 16}, {'model.width': 32}], are plain lists of dicts. An element may set
several keys at once, as {'model.width': 32, 'model.mlp_dim': 128}. The functions below are pure and combine such lists.
"""

import builtins
import dataclasses
import functools
import itertools
import math
import numbers
from collections.abc import Sequence
from typing import Any

from vit_jax import recipe
from vit_jax.errors import UserError

Overrides = dict[str, Any]  # config key -> value


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A recipe, as --config takes it (FILE.py or FILE.py:ARG), and the overrides of each run."""
  recipe: str
  runs: Sequence[Overrides]


def axis(key: str, *values: Any) -> list[Overrides]:
  """One choice for each value of a config key: axis('model.depth', 2, 4, 8)."""
  return [{key: value} for value in values]


def seeds(n: int, first: int = 0) -> list[Overrides]:
  """The n seeds that start at `first`."""
  return axis('seed', *range(first, first + n))


def product(*lists: Sequence[Overrides]) -> list[Overrides]:
  """Every combination of one choice from each list; the last list varies fastest.

  Raises:
    UserError: two choices that are combined set the same key to different values.
  """
  return [_merged('product', choices) for choices in itertools.product(*map(_checked, lists))]


def zip(*lists: Sequence[Overrides]) -> list[Overrides]:  # noqa: A001
  """Combines the first choices of all lists, then the second ones, and so on.

  Raises:
    UserError: the lists have different lengths, or two choices set the same key to different values.
  """
  if len({len(choices) for choices in lists}) > 1:
    raise UserError(f'zip: lists of {", ".join(str(len(choices)) for choices in lists)} choices; they must be as long '
                    'as each other')
  return [_merged('zip', choices) for choices in builtins.zip(*map(_checked, lists))]


def chain(*lists: Sequence[Overrides]) -> list[Overrides]:
  """The choices of all lists, one list after the other."""
  return [choice for choices in lists for choice in _checked(choices)]


def branches(steps: Sequence[int], cooldown: float = 0.3) -> list[Overrides]:
  """Runs of several lengths with a warm-up, a stable phase, and a cooldown over the last part of each length.

  The stable phase is trained once, as a trunk, and each length is a cooldown that branches from it (Zhai et al. 2022;
  Haegele et al. 2024). Such runs carry no mark: all runs of a sweep that differ only in length, and whose schedule
  allows it (wsd, rsqrt), share their trunk.

  Args:
    steps: the lengths.
    cooldown: the fraction of each length over which the learning rate falls to 0.
  """
  return [{'schedule.name': 'wsd', 'schedule.cooldown_fraction': cooldown, 'train.steps': n} for n in steps]


def isoflop(budgets: Sequence[float], shapes: Sequence[Overrides]) -> list[Overrides]:
  """Every shape at every budget of training FLOPs. The number of steps follows from the shape's FLOPs per example.

  With {'schedule.name': 'wsd'} in the product, the budgets of a shape are branches of one trunk.
  """
  return product(axis('train.flops', *map(float, budgets)), shapes)


def load(spec: str) -> Sweep:
  """The sweep of a file `FILE.py` or `FILE.py:ARG`, as its get_sweep() or get_sweep(ARG) returns it.

  Raises:
    UserError: the errors of `recipe.load`, or the sweep has no runs.
  """
  sweep = recipe.load(spec, 'sweep', 'get_sweep', Sweep, 'a vit_jax.sweeps.Sweep')
  if not _checked(sweep.runs):
    raise UserError(f'{spec.partition(":")[0]}: the sweep has no runs')
  return sweep


def _checked(choices):
  """The list, where it is one of dicts of values that a flag can carry."""
  for choice in choices:
    if not isinstance(choice, dict):
      raise UserError(f'sweep: expected a dict of config keys, got {choice!r}; such as {{"model.width": 32}}')
    for key, value in choice.items():
      if not _is_value(value):
        raise UserError(f'sweep: {key}={value!r}: expected a finite number, a text, True, False, None, or a tuple')
  return choices


def _is_value(value):
  if isinstance(value, (tuple, list)):
    return all(map(_is_value, value))
  return value is None or isinstance(value, str) or isinstance(value, numbers.Real) and math.isfinite(value)


def _merged(name, choices):
  return functools.reduce(functools.partial(_merge, name), choices, {})


def _merge(name, left, right):
  for key in left.keys() & right.keys():
    if left[key] != right[key]:
      raise UserError(f'{name}: {key} is both {left[key]!r} and {right[key]!r}')
  return left | right
