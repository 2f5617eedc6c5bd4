"""What a law mixes: rows that are alike in its inputs but not in their loss, pooled categories, undeclared lineages."""

import collections
import dataclasses
from collections.abc import Collection, Hashable, Iterator

import numpy as np

from vit_jax.scaling import checks
from vit_jax.scaling.estimate import Fit
from vit_jax.scaling.points import AXES, LABELS, Points
from vit_jax.scaling.rows import number

_APART = 1.25  # losses of rows alike in their inputs differ by less, unless a setting tells them apart
# Columns that name a run, count what it did, or are compared when points are read (see `rows`).
_KNOWN = {*LABELS, *AXES, 'folder', 'config_hash', 'step', 'epochs', 'split', 'metric', 'data', 'classes', 'versions',
          'scored_examples', 'picture', 'data_path', 'data_contents', 'params_non_embedding', 'state', 'name', 'id'}
_SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Mixed:
  """A column whose values one law pools.

  Attributes:
    words: a sentence.
    differ: whether the residuals of its values differ significantly.
  """
  words: str
  differ: bool


def tuned_columns(points: Points, fit: Fit, pool: Collection[str]) -> Iterator[str]:
  """Sentences on numbers that differ between rows alike in the inputs, and on losses that differ for no visible reason.

  A learning rate is such a number. A column in which every row differs is a result or a name, and does not count.
  """
  sets = _sets(points, fit)
  names, where = ' and '.join(_input_names(points, fit)), [i for found in sets for i in found]
  varied = False
  for name, values in _columns(points, ('learning_rate',)):
    if name in pool or any(number(v) is None for v in values):
      continue
    apart = [found for found in sets if len({values[i] for i in found}) > 1]
    if apart and len({values[i] for i in where}) <= max(2, len(where) / 2):
      varied = True
      yield (f'{len(apart)} of {len(sets)} sets of rows that are alike in {names} have several values of {name}, '
             f'possibly poor ones: the law is fitted to their mean; --best_of={name} keeps the best of each')
  worst = max(sets, key=lambda found: np.ptp(np.log(points.y[found])), default=[])
  if worst and not varied and (ratio := float(np.exp(np.ptp(np.log(points.y[worst]))))) > _APART:
    ends = worst[int(np.argmin(points.y[worst]))], worst[int(np.argmax(points.y[worst]))]
    yield (f'rows that are alike in {names} differ {ratio:.2g}-fold in {points.metric}, and no column tells them '
           f'apart: {points.runs[ends[0]]} and {points.runs[ends[1]]}')


def pooled(points: Points, fit: Fit, pool: Collection[str]) -> list[Mixed]:
  """The columns of texts whose values one law pools, such as data sets, those first whose residuals differ most."""
  found = []
  for name, values in _columns(points):
    counts = collections.Counter(map(str, values))
    texts = any(number(v) is None for v in values)
    if name in pool or not texts or len(counts) < 2 or min(counts.values()) < 2 or _names_inputs(points, fit, values):
      continue
    test = checks.depends(fit, values)
    shown = ', '.join(sorted(counts)[:3]) + (', ...' if len(counts) > 3 else '')
    differ = test is not None and test.significant
    found.append((-test.f if test else 0.0, Mixed(
        f'one law is fitted to {len(counts)} values of {name} ({shown})'
        f'{f", whose residuals differ (F = {test.f:.3g})" if differ else ""}; --group={name} fits them separately, '
        f'--pool={name} says that they belong together', differ)))
  return [mixed for _, mixed in sorted(found, key=lambda pair: pair[0])][:_SHOWN]


def lineages(points: Points, fit: Fit) -> tuple[np.ndarray, str]:
  """The cluster of each point [n], and a sentence where residuals show lineages that no column tells.

  The branches of a trunk share the deviation of their trunk, so residuals within one model size (and seed) are alike.
  """
  if len(np.unique(points.clusters)) < len(points) or 'params' not in points.columns:
    return points.clusters, ''
  sizes = points.columns['params'].tolist()
  seeds = [row.get('seed') for row in points.rows]
  keys: list[tuple[str, list[Hashable]]] = [('params', sizes)]
  if len(set(seeds)) > 1 and None not in seeds:
    keys.insert(0, ('params and seed', list(zip(sizes, seeds))))
  for what, labels in keys:
    test = checks.shared(fit, labels)
    if test and test.significant:
      index = np.unique([str(label) for label in labels], return_inverse=True)[1]
      return index, (f'residuals within one value of {what} are alike (F = {test.f:.3g}), as those of branches of one '
                     f'trunk are: the {len(points)} points are resampled as {index.max() + 1} lineages. '
                     '--columns=lineage=NAME names the column that tells')
  return points.clusters, ''


def _columns(points, also=()):
  """(name, values) of the columns that no part of the law knows."""
  known = _KNOWN - set(also) | {points.metric, points.x_name}
  for name in dict.fromkeys(key for row in points.rows for key in row):
    values = [row.get(name) for row in points.rows]
    if name and name[0] != '_' and name.lower() not in known and not any(v in (None, '') for v in values):
      if len(set(map(str, values))) > 1:
        yield name, values


def _input_names(points, fit):
  return [points.x_name if name == 'x' else name for name in fit.form.inputs]


def _sets(points, fit):
  """Lists of indices of points that are alike in all inputs, two or more each."""
  found = collections.defaultdict(list)
  for i, key in enumerate(zip(*(fit.columns[name].tolist() for name in fit.form.inputs))):
    found[key].append(i)
  return [index for index in found.values() if len(index) > 1]


def _names_inputs(points, fit, values):
  """Whether a column only names the values of an input, as the name of a model names its size."""
  columns = [*(fit.columns[name] for name in fit.form.inputs), *points.columns.values()]
  return any(len(set(zip(map(str, values), column.tolist()))) == len(set(map(str, values))) for column in columns)
