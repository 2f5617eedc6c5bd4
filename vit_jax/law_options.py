"""The options of a law: one table, of which `vit_jax.law` makes flags and `vit_jax.fit` arguments."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from absl import flags

from vit_jax.errors import UserError, nearest
from vit_jax.scaling.verdict import number

flags.disclaim_key_flags()  # the flags that `define` makes belong to the command that calls it


def _option(default: Any, words: str, low: float | None = None, high: float | None = None) -> Any:
  """A field: its default, what it is for, and the range of a number."""
  return dataclasses.field(default=default, metadata={'words': words, 'low': low, 'high': high})


@dataclasses.dataclass(frozen=True)
class Options:
  """What a law is fitted to, and how. Lists are tuples; columns has pairs of our name and theirs."""
  form: str = _option('auto', 'power, power_offset, shifted_power, broken_power, m4 or zhai (in --x); chinchilla, '
                      'chinchilla_tied (alpha = beta), overtrain, data_constrained (in params, examples); auto; or an '
                      "expression such as 'E + A/N^alpha + B/D^beta'.")
  start: str = _option('', 'Bounds and starts of the coefficients of such an expression, such as '
                       'alpha=0.1..1,E>0,k<5,c=2.')
  metric: str = _option('loss', 'The metric to predict: a column, or SPLIT/NAME. Without a split, runs are read on '
                        'val.')
  x: str | None = _option(None, 'The input of forms of one input: examples, params, flops, any column, or an '
                          'expression such as params*examples.')
  curves: str | None = _option(None, 'Fit whole learning curves: every evaluation of a run or a trunk is a point with '
                               'the areas of its learning rate (Tissue et al. 2024). A number is the decay of '
                               'annealing, such as 0.999; auto chooses it. multi_power is the law of Luo et al. 2025.')
  objective: str = _option('log_huber', 'log_huber, log_lsq or lsq.')
  delta: float = _option(1e-3, 'The log residual at which the Huber loss becomes linear.', 1e-12, 1e3)
  bootstrap: int = _option(1000, 'Refits to resampled runs, for the intervals; 0 for none.', 0, 1_000_000)
  seed: int = _option(0, 'Seed of the resampling.', 0, 2**32 - 1)
  where: str | None = _option(None, "Read only rows that this is true of, such as 'params>=1e6 and "
                              'not dataset==\"c4\"\'.')
  holdout: str | None = _option(None, "largest:K, comparisons such as 'flops>=1e21 or dataset==c4', or column:NAME "
                                '(rows where it is 0, false or "test").')
  group: str | None = _option(None, 'Fit each value of this column separately. --group=folder separates sweeps by the '
                              'folder of their runs.')
  share: tuple[str, ...] = _option((), 'Coefficients that all groups have in common, such as alpha,beta: the groups '
                                   'are fitted together, with a test of which coefficients differ.')
  separate: tuple[str, ...] = _option((), 'As --share of all coefficients but these.')
  then: str | None = _option(None, 'The law of a second metric from the first, with intervals through both, such as '
                             "'error = lo + (hi-lo)*sigmoid(k*(loss-m))'.")
  target: str | None = _option(None, 'Where to predict, such as params=1e9,examples=1e10; several with ; between them.')
  compare: tuple[str, ...] = _option((), 'Two groups, A,B: the compute that B needs for the loss of A, with an '
                                     'interval and a p-value; "all" for every pair. Default: if there are two groups, '
                                     'these.')
  pool: tuple[str, ...] = _option((), 'Columns in which the rows of one law may differ, such as classes or dataset.')
  frontier: int | None = _option(None, 'Fit the lower edge of a cloud: the best point in each of this many bins of '
                                 'size.', 2, 10_000)
  best_of: tuple[str, ...] = _option((), 'Columns that were tuned, such as learning_rate: of runs that differ only in '
                                     'these and the seed, keep those with the best values on val.')
  best_by: str = _option('', 'The column that --best_of is best by; default: --metric. Of metrics such as accuracy the '
                         'highest is best, as the objectives declare it.')
  columns: tuple[tuple[str, str], ...] = _option((), 'OURS=THEIRS,...: names in the tables, such as '
                                                     'params=N,loss=val/loss.')
  sigma: str | None = _option(None, 'A column with the standard deviation of each (log) value: points are weighted by '
                              '1/sigma^2.')
  budget: tuple[float, ...] = _option((), 'Budgets in FLOPs: print the compute-optimal size, length and loss for each.')

  def words(self) -> list[str]:
    """The flags that say the same."""
    texts = {field.name: _text(getattr(self, field.name)) for field in dataclasses.fields(self)}
    return [f'--{name}={text}' for name, text in texts.items() if text]


FIELDS = {field.name: field for field in dataclasses.fields(Options)}


def define(flag_values: flags.FlagValues = flags.FLAGS) -> dict[str, flags.FlagHolder]:
  """Defines a flag of the calling module for each option."""
  return {name: _define(name, field, flag_values) for name, field in FIELDS.items()}


def of_flags(holders: Mapping[str, flags.FlagHolder]) -> Options:
  """The options that the flags give."""
  return of(**{name: holder.value for name, holder in holders.items()})


def of(**given: Any) -> Options:
  """The options of some values: texts as flags give them, or lists, mappings and numbers.

  Raises:
    UserError: an unknown name, a number out of its range, or a value of another kind.
  """
  for name in given:
    if name not in FIELDS:
      raise UserError(f'{name}: unknown option of a law{nearest(name, FIELDS)}')
  return Options(**{name: _value(FIELDS[name], value) for name, value in given.items()})


def _define(name, field, flag_values):
  words, low, high = (field.metadata[key] for key in ('words', 'low', 'high'))
  if isinstance(field.default, tuple):
    return flags.DEFINE_list(name, [], words, flag_values=flag_values)
  if low is not None:
    of_number = flags.DEFINE_float if isinstance(field.default, float) else flags.DEFINE_integer
    return of_number(name, field.default, words, low, high, flag_values=flag_values)
  return flags.DEFINE_string(name, field.default, words, flag_values=flag_values)


def _value(field, value):
  if isinstance(field.default, tuple):
    return _items(field.name, value)
  low, high = field.metadata['low'], field.metadata['high']
  if value is None or low is None:
    if not isinstance(value, str) and value is not None:
      raise UserError(f'{field.name}={value!r}: expected a text')
    return field.default if value is None else value
  whole = not isinstance(field.default, float)
  if isinstance(value, bool) or not isinstance(value, (int, float)) or (whole and value != int(value)) or not (
      low <= value <= high):
    raise UserError(f'{field.name}={value!r}: expected a {"whole " if whole else ""}number from {low:g} to {high:g}')
  return value


def _items(name, value):
  """A tuple of texts or numbers, or of pairs of columns."""
  if isinstance(value, Mapping):
    return tuple((str(ours), str(theirs)) for ours, theirs in value.items())
  items = [] if value is None else value.split(',') if isinstance(value, str) else value
  found = tuple(items) if isinstance(items, (list, tuple)) else (items,)
  if name == 'columns':
    return tuple(map(_pair, found))
  return tuple(positive('budget', item) for item in found) if name == 'budget' else tuple(map(str, found))


def _pair(item):
  ours, equals, theirs = item.partition('=') if isinstance(item, str) else (item, '', '')
  if not (ours and equals and theirs):
    raise UserError(f'--columns: expected OURS=THEIRS, such as params=N, got {item!r}')
  return ours, theirs


def positive(flag: str, text: str | float) -> float:
  """A finite number above 0. Raises UserError for anything else."""
  try:
    value = float(text)
  except (TypeError, ValueError):
    value = math.nan
  if not (value > 0 and math.isfinite(value)):
    raise UserError(f'--{flag}={text}: expected a number above 0, such as 1e18')
  return value


def _text(value):
  """A value as its flag gives it; '' for none."""
  if isinstance(value, tuple):
    return ','.join(number(item, 17) if isinstance(item, float) else '='.join(item) if isinstance(item, tuple) else item
                    for item in value)
  return '' if value is None else str(value)
