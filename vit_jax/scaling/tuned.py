"""Points that differ in what is tuned, such as the learning rate: the best of them, as a law is meant of tuned runs."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_jax.scaling.points import AXES, Points, column, flat, number

_NAMES = {'learning_rate': 'optimizer.learning_rate'}  # columns that have a short name too


def best_of(points: Points, names: Sequence[str], group: str | None = None) -> Points:
  """The points with the best values of some columns, among those that are alike in all else but the seed.

  The best have the lowest mean over their seeds, on `val` where the points are runs: a law of test errors is not to be
  chosen by test errors. The others are dropped; a note says where the best lies at the edge of what was tried.

  Args:
    points: as loaded.
    names: the columns that were tuned, such as optimizer.learning_rate.
    group: the column whose values are fitted apart; each is tuned by itself.

  Raises:
    UserError: a column that no row has, or that some rows lack.
  """
  as_told = lambda value: value if number(value) is None else number(value)
  values = list(zip(*(map(as_told, column(points, name)) for name in names), strict=True))
  keep, edges = [], 0
  alike = _alike(points, names, group)
  for index in alike:
    tried = collections.defaultdict(list)
    for i in index:
      tried[values[i]].append(i)
    best = min(tried, key=lambda value: np.mean([points.rows[i].get('_val') or points.y[i] for i in tried[value]]))
    keep += tried[best]
    edges += any(_at_edge(best[k], {value[k] for value in tried}) for k in range(len(names)))
  what = ' and '.join(names)
  left = sorted(set(range(len(points))) - set(keep))
  notes = [f'{what}: the best of those tried, for each of {len(alike)} kinds of run']
  if edges:
    notes.append(f'in {edges} of them the best {what} is the least or the greatest that was tried: try further')
  kept = points.take(np.array(sorted(keep)))
  return dataclasses.replace(kept, notes=(*points.notes, *notes), dropped=(
      *points.dropped, *((points.runs[i], f'another {what} is better') for i in left)))


def warned(points: Points, group: str | None = None) -> Points:
  """With a note where runs that are alike have several learning rates: a law goes through the mean of them."""
  if not all(row.get('learning_rate') for row in points.rows):
    return points
  rates = [{points.rows[i]['learning_rate'] for i in index} for index in _alike(points, ['learning_rate'], group)]
  if several := sum(len(found) > 1 for found in rates):
    note = (f'{several} of {len(rates)} kinds of run have several learning rates, bad ones among them perhaps; '
            '--best_of=learning_rate keeps the best of each')
    return dataclasses.replace(points, notes=(*points.notes, note))
  return points


def _alike(points, names, group):
  """[indices] of points that differ in nothing but `names` and the seed, as far as rows tell."""
  free = {*names, *(_NAMES[name] for name in names if name in _NAMES), 'seed'}
  found = collections.defaultdict(list)
  for i, row in enumerate(points.rows):
    inputs = [(name, values[i]) for name, values in points.columns.items() if name in (*AXES, 'x')]
    config = [(key, value) for key, value in flat(row.get('_config') or {}).items() if key not in free]
    found[repr((inputs, sorted(config, key=str), row.get(group)))].append(i)
  return list(found.values())


def _at_edge(value, tried):
  """Whether it is the first or the last of at least two numbers."""
  numbers = isinstance(value, float) and len(tried) > 1
  return numbers and value in (min(tried), max(tried))
