"""Selection of the best points among those that differ in tuned columns; a law assumes tuned runs."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_jax.scaling.points import AXES, Points, column
from vit_jax.scaling.rows import number
from vit_jax.scaling.run_rows import flat

_NAMES = {'learning_rate': 'optimizer.learning_rate'}  # short names of columns


def best_of(points: Points, names: Sequence[str], group: str | None = None) -> Points:
  """The points with the best values of the tuned columns, among points that otherwise differ only in the seed.

  The best points have the lowest mean over seeds. Runs are compared on `val`, so that a law of test errors is not
  selected by test errors. The other points are dropped. A note says where the best value is at the edge of the grid.

  Args:
    points: the loaded points.
    names: the columns that were tuned, such as optimizer.learning_rate.
    group: the column whose values are fitted separately; each group is tuned separately.

  Raises:
    UserError: a column that no row has, or that some rows lack.
  """
  as_number = lambda value: value if number(value) is None else number(value)
  values = list(zip(*(map(as_number, column(points, name)) for name in names), strict=True))
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
  notes = [f'{what}: the best value was kept for each of {len(alike)} configurations']
  if edges:
    notes.append(f'in {edges} of them the best {what} is at the edge of the values tried: extend the grid')
  kept = points.take(np.array(sorted(keep)))
  return dataclasses.replace(kept, notes=(*points.notes, *notes), dropped=(
      *points.dropped, *((points.runs[i], f'another {what} is better') for i in left)))


def note_untuned(points: Points, group: str | None = None) -> Points:
  """Adds a note if a configuration has several learning rates, because a law would be fitted to their mean."""
  if not all(row.get('learning_rate') for row in points.rows):
    return points
  rates = [{points.rows[i]['learning_rate'] for i in index} for index in _alike(points, ['learning_rate'], group)]
  if several := sum(len(found) > 1 for found in rates):
    note = (f'{several} of {len(rates)} configurations have several learning rates, possibly poor ones; '
            '--best_of=learning_rate keeps the best of each')
    return dataclasses.replace(points, notes=(*points.notes, note))
  return points


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
