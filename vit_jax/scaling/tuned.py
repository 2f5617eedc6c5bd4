"""Selection of the best points among those that differ in tuned columns; a law assumes tuned runs."""

import collections
import dataclasses
import re
from collections.abc import Collection, Sequence

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling.points import AXES, Points, column
from vit_jax.scaling.rows import number
from vit_jax.scaling.run_rows import flat

_NAMES = {'learning_rate': 'optimizer.learning_rate'}  # short names of columns


def best_of(points: Points, names: Sequence[str], group: str | None = None, by: str = '',
            higher_is_better: Collection[str] = ()) -> Points:
  """The points with the best values of the tuned columns, among points that otherwise differ only in the seed.

  The best points have the lowest mean over seeds, or the highest of a metric that is better the higher it is. Runs are
  compared on `val`, so that a law of test errors is not selected by test errors. The other points are dropped. A note
  says where the best value is at the edge of the grid.

  Args:
    points: the loaded points.
    names: the columns that were tuned, such as optimizer.learning_rate.
    group: the column whose values are fitted separately; each group is tuned separately.
    by: the column that is best; '' for the metric of the law. A law of a tuned column, such as the best batch size,
      needs another one.
    higher_is_better: names of metrics that are better the higher they are, for rows that do not say it themselves.

  Raises:
    UserError: a column that no row has, or that some rows lack, or no column to be best by.
  """
  if not by and (points.metric in names or points.metric in _NAMES.values() or any(
      points.metric in flat(row.get('_config') or {}) for row in points.rows)):
    raise UserError(f'--best_of={",".join(names)}: the lowest {points.metric} is not the best; expected --best_by, the '
                    'metric that is, such as --best_by=loss')
  score = _scores(points, by, higher_is_better)
  as_number = lambda value: value if number(value) is None else number(value)
  values = list(zip(*(map(as_number, column(points, name)) for name in names), strict=True))
  keep, edges = [], 0
  alike = _alike(points, names, group)
  for index in alike:
    tried = collections.defaultdict(list)
    for i in index:
      tried[values[i]].append(i)
    best = min(tried, key=lambda value: np.mean(score[tried[value]]))
    keep += tried[best]
    edges += any(_at_edge(best[k], {value[k] for value in tried}) for k in range(len(names)))
  what = ' and '.join(names)
  left = sorted(set(range(len(points))) - set(keep))
  notes = [f'{what}: the best value was kept for each of {len(alike)} configurations']
  if edges:
    notes.append(f'in {edges} of them the best {what} is at the edge of the values tried: extend the grid')
  kept = points.take(np.array(sorted(keep)))
  return dataclasses.replace(kept, notes=(*points.notes, *notes), dropped=(
      *points.dropped, *((points.runs[i], f'another {what} is better') for i in left)))


def frontier(points: Points, bins: int) -> Points:
  """The best point in each of `bins` equal steps of the logarithm of size, as the lower edge of a cloud."""
  size = np.log(points.size[1])
  place = np.minimum(((size - size.min()) / max(np.ptp(size), 1e-12) * bins).astype(int), bins - 1)
  keep = np.array([min(np.flatnonzero(place == value), key=lambda i: points.y[i]) for value in np.unique(place)])
  left = sorted(set(range(len(points))) - set(keep.tolist()))
  return dataclasses.replace(points.take(np.sort(keep)), dropped=(
      *points.dropped, *((points.runs[i], 'not the best in its bin of size') for i in left)), notes=(
          *points.notes, f'the frontier: the lowest {points.metric} in each of {len(keep)} bins of {points.size[0]}; '
          'the lowest of many is lower than one run can expect'))


def say_which_is_better(points: Points) -> bool:
  """Whether all rows are of runs that say which of their metrics are better the higher they are; tables do not."""
  return all(row.get('_higher_is_better') is not None for row in points.rows)


def _scores(points, by, higher_is_better):
  """[n], what is lowest for the best run."""
  of_runs = [row.get('_val') for row in points.rows]
  if by and not all(row.get('_config') is not None for row in points.rows):
    values = np.array([np.nan if number(value) is None else number(value) for value in column(points, by)])
    if np.isnan(values).any():
      raise UserError(f'--best_by={by}: expected a column of numbers')
  else:
    values = np.array([y if value is None else value for value, y in zip(of_runs, points.y)], float)
  said = {*higher_is_better, *(name for row in points.rows for name in row.get('_higher_is_better') or ())}
  return -values if said & _endings(by or points.metric) else values


def _endings(metric):
  """The metric, and it without what stands before: test/probe/accuracy, probe/accuracy and accuracy."""
  metric = metric.lower()
  return {metric, *(metric[found.end():] for found in re.finditer('[/_. ]', metric))}


def _alike(points, names, group):
  """Lists of indices of points whose rows differ only in `names` and the seed."""
  free = {*names, *(_NAMES[name] for name in names if name in _NAMES), 'seed'}
  found = collections.defaultdict(list)
  for i, row in enumerate(points.rows):
    inputs = [(name, values[i]) for name, values in points.columns.items() if name in (*AXES, 'x')]
    config = [(key, value) for key, value in flat(row.get('_config') or {}).items() if key not in free]
    found[repr((inputs, sorted(config, key=str), row.get(group)))].append(i)
  return list(found.values())


def _at_edge(value, tried):
  """Whether the value is the lowest or the highest of at least two numbers."""
  numbers = isinstance(value, float) and len(tried) > 1
  return numbers and value in (min(tried), max(tried))
