"""Rows of tables and runs: which values are numbers, which rows are one and the same, which may be compared."""

import collections
import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling.tables import Row

_NAMES = ('run', 'folder', 'lineage', 'config_hash')  # what a copy of a run changes
_INDEX = re.compile(r'(unnamed.*|index|id|row|#|)', re.IGNORECASE)  # headers of a column that only counts rows
_ENOUGH_DIGITS = 5  # equal losses with as many significant digits are not a coincidence
# Columns without which a metric has another meaning, and what they are called in a sentence.
_MEANING = {'metric': 'metrics', 'split': 'splits', 'data': 'data sets', 'objective': 'objectives',
            'classes': 'numbers of classes', 'scored_examples': 'numbers of scored examples'}
# Columns that are expected to be the same in all runs of a law, although the metric means the same.
_SETTING = {'picture': 'picture sizes', 'data_path': 'paths of the data', 'data_contents': 'contents of the data',
            'versions': 'versions of libraries', 'code': 'versions of the code'}
WIDE_SPAN = 1e8  # the largest / smallest value of a count above which two units are more likely than such a ladder


def number(value: Any) -> float | None:
  """A value of a table as a float; None if it is not written as a number: true, 1_000 or a list."""
  if isinstance(value, bool) or not isinstance(value, (int, float, str)):
    return None
  if isinstance(value, str) and ('_' in value or not value.isascii()):
    return None
  try:
    return float(value)
  except (ValueError, OverflowError):  # OverflowError: an integer beyond 1e308
    return None


def fault(name: str, value: Any) -> str | None:
  """What is wrong with a value; None for a number above 0."""
  if value in (None, ''):
    return f'no {name}'
  found = number(value)
  if found is None:
    return f'{name} is not a number: {str(value)[:24]!r}'
  if not math.isfinite(found):
    return f'{name} is {found}'
  return None if found > 0 else f'{name} is not above 0'


def clean(rows: list[Row], names: Mapping[str, str], needed: Collection[str],
          dropped: list[tuple[str, str]]) -> tuple[list[Row], dict[str, np.ndarray]]:
  """The rows whose needed values are numbers above 0, and {our name: values}; appends the others to `dropped`.

  Raises:
    UserError: no row is left.
  """
  kept = []
  for row in rows:
    if reason := next(filter(None, (fault(names[name], row.get(names[name])) for name in needed)), None):
      dropped.append((str(row['run']), reason))
    else:
      kept.append(row)
  if not kept:
    raise UserError(f'no points left: {"; ".join(f"{what}: {why}" for what, why in dropped[:5]) or "nothing was read"}')
  whole = [name for name in names if not any(fault(theirs := names[name], row.get(theirs)) for row in kept)]
  return kept, {name: np.array([number(row[names[name]]) for row in kept]) for name in whole}


def distinct(rows: list[Row], metric: str) -> tuple[list[Row], list[tuple[str, str]], list[str]]:
  """Separates rows from copies of them.

  Rows that agree in all columns but those that name them are one row if they have the same run name or none. With
  different run names, they are copies if the metric has five or more digits, or if most of the table is like this.
  Else two runs may have the same rounded loss: they are kept.

  Returns:
    The rows without copies, (name, reason) of each copy, and notes.
  """
  ignored = {*_NAMES, *_counters(rows)}
  alike = collections.defaultdict(list)
  for row in rows:
    alike[str(sorted((k, str(v)) for k, v in row.items() if k not in ignored and k[0:1] != '_'))].append(row)
  sets = [found for found in alike.values() if len({str(row['run']) for row in found}) > 1]
  most = len(sets) > 2 and sum(map(len, sets)) > len(rows) / 2
  copies, dropped, doubtful = set(), [], 0
  for found in alike.values():
    sure = most or _digits(found[0].get(metric)) >= _ENOUGH_DIGITS
    names = {str(found[0]['run'])}
    for row in found[1:]:
      if row.get('_numbered') or str(row['run']) in names:
        dropped.append((row['run'], 'exact duplicate of another row'))
      elif sure:
        dropped.append((row['run'], 'same values as another row, under another name'))
      else:
        names.add(str(row['run']))
        doubtful += 1
        continue
      copies.add(id(row))
  notes = [f'{doubtful} rows have the same values as a row of another name; with so few digits they may be other '
           'runs, so they count as independent'] if doubtful else []
  return [row for row in rows if id(row) not in copies], dropped, notes


def _counters(rows):
  """Columns that only count the rows, such as the index that pandas writes."""
  for name in {key for row in rows for key in row if _INDEX.fullmatch(key)}:
    values = [number(row.get(name)) for row in rows if name in row]
    if None not in values and all(b - a in (1, 1 - len(values)) or b == 0 for a, b in zip(values, values[1:])):
      yield name


def _digits(value):
  """The number of significant digits that a value is written with."""
  return len(re.sub(r'e.*|[^0-9]', '', str(value), flags=re.IGNORECASE).strip('0'))


def check_comparable(rows: list[Row], group: str | None, pool: Collection[str]) -> None:
  """Raises UserError if the metric does not mean the same in all rows, unless the column is in `pool`."""
  for name, what in _MEANING.items():
    found = _values(rows, name)
    if len(found) > 1 and name not in (group, *pool):
      raise UserError(f'the points mix {what} ({", ".join(found[:4])}): their values are not comparable. Choose '
                      f'one, fit them separately with --group={name}, or fit one law to all with --pool={name}')


def notes(rows: list[Row], values: Mapping[str, np.ndarray], group: str | None, pool: Collection[str]) -> Iterator[str]:
  """Sentences on settings that differ between the rows, and on columns that seem to be in several units."""
  for name, what in _SETTING.items():
    counts = collections.Counter(str(row[name]) for row in rows if row.get(name) not in (None, ''))
    if len(counts) > 1 and name not in (group, *pool) and not (name == 'data_contents' and _only_subsets(rows)):
      shown = ', '.join(f'{count} of {value}' for value, count in counts.most_common(4))
      yield f'the points are of {len(counts)} {what} ({shown}); --group={name} fits them separately'
  for name in ('params', 'examples', 'unique_examples'):
    if name in values and values[name].max() / WIDE_SPAN > values[name].min():
      yield (f'{name} goes from {values[name].min():.4g} to {values[name].max():.4g}: are some rows in another unit, '
             'such as millions? --where leaves rows out')


def _only_subsets(rows):
  """Whether the contents of the data differ only because runs train on other numbers of the same examples."""
  train, held = {}, set()
  for row in rows:
    try:
      contents = dict(json.loads(row['data_contents']))
    except (KeyError, TypeError, ValueError):  # not said, or not as runs say it
      return False
    train.setdefault(str(row.get('unique_examples')), set()).add(contents.pop('train', None))
    held.add(json.dumps(contents, sort_keys=True))
  return len(held) == 1 and all(len(found) == 1 for found in train.values())


def _values(rows, name):
  return sorted({str(row[name]) for row in rows if row.get(name) not in (None, '')})
