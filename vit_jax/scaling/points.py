"""The points of a law: one per finished run (or table row), cleaned, with everything dropped counted and named."""

import collections
import dataclasses
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from vit_jax import schema
from vit_jax.errors import UserError, nearest
from vit_jax.scaling import tables
from vit_jax.scaling.tables import SPLITS, Row

LABELS = ('run', 'lineage', 'seed', 'learning_rate')  # columns with a meaning of their own that need no number
AXES = ('params', 'examples', 'unique_examples', 'flops')


@dataclasses.dataclass(frozen=True)
class Points:
  """n points.

  Attributes:
    metric, x_name: the names of what is predicted and of x; y [n]: the metric's values, above 0.
    columns {name: [n]}: the numeric inputs that every point has (those of AXES and `x`).
    runs [n]: names; clusters [n]: what is resampled as one in the bootstrap (a trunk and its branches, or a run).
    rows [n]: each point's source row, for groups, hold-outs and the report.
    curves {run: (x name, [m], [m])}: learning curves of run folders, for the figures only.
    dropped: [(what, why)].
    spent {kind: seconds}: where the time of all runs went that were read, trunks and unfinished ones too.
  """
  metric: str
  x_name: str | None
  y: np.ndarray
  columns: dict[str, np.ndarray]
  runs: list[str]
  clusters: np.ndarray
  rows: list[Row]
  curves: dict[str, tuple[np.ndarray, np.ndarray]]
  dropped: tuple[tuple[str, str], ...] = ()
  notes: tuple[str, ...] = ()
  spent: dict[str, float] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.y)

  def take(self, where: np.ndarray) -> 'Points':
    """The points of a boolean mask or of indices, in that order."""
    index = np.flatnonzero(where) if np.asarray(where).dtype == bool else np.asarray(where, int)
    runs = [self.runs[i] for i in index]
    return dataclasses.replace(
        self, y=self.y[index], columns={k: v[index] for k, v in self.columns.items()}, runs=runs,
        clusters=self.clusters[index], rows=[self.rows[i] for i in index],
        curves={k: v for k, v in self.curves.items() if k in set(runs)})

  @property
  def size(self) -> tuple[str, np.ndarray]:
    """What orders the points by how large a run is, and its values: x where one was chosen, else FLOPs, else N D."""
    for name in ('x', 'flops'):
      if name in self.columns:
        return self.x_name if name == 'x' else name, self.columns[name]
    if 'params' in self.columns and 'examples' in self.columns:
      return 'params x examples', self.columns['params'] * self.columns['examples']
    raise UserError(f'the points need x, flops, or params and examples to be put in order; they have '
                    f'{", ".join(self.columns) or "none"}')

  def dropped_words(self) -> list[str]:
    """`3 runs: not finished (a, b, c)` for each reason."""
    reasons = collections.defaultdict(list)
    for what, why in self.dropped:
      reasons[why].append(what)
    return [f'{len(what)} dropped, {why}: {", ".join(what[:5])}{", ..." if len(what) > 5 else ""}'
            for why, what in reasons.items()]


def load(paths: Iterable[os.PathLike | str], metric: str = 'loss', x: str | None = None,
         columns: Mapping[str, str] | None = None, group: str | None = None, need: Iterable[str] = ()) -> Points:
  """Reads run folders (or folders of them) and tables into points.

  Args:
    metric: a column, or SPLIT/NAME of metrics.jsonl; a name without a split is read from `val` (else `test`).
    x: the column that forms of one input read, also a foreign name.
    columns: {our name: its name in the tables}, as in {'params': 'N', 'loss': 'val/loss'}; also of LABELS.
    group: the column whose values are fitted apart; what differs between groups need not be comparable.
    need: the columns without which a row is dropped; others of AXES are kept where every row has them.

  Raises:
    UserError: no such path, a missing column, values that are not comparable, or nothing left.
  """
  rename, rows, dropped, curves, all_folders = dict(columns or {}), [], [], {}, []
  for path in map(epath.Path, paths):
    if not _exists(path):
      raise UserError(f'{path}: no such file or folder')
    if path.is_dir():
      folders = tables.find_runs(path)
      if not folders:
        raise UserError(f'{path}: no run.json in it or below it')
      found = [(folder, *read) for folder, read in zip(folders, tables.read_runs(folders))]
      all_folders += folders
      runs = [run for run in found if run[1].get('status') != 'trunk']  # a trunk's branches are the runs
      if not runs:
        raise UserError(f'{path}: {len(found)} trunks, and none of the runs that branch off yet')
      for folder, *run in runs:
        _add_run(folder, *run, rename.get(metric, metric), rows, dropped, curves)
    else:
      table, left_out = tables.read_table(path)
      rows += [{'run': f'{path.stem}:{i}', '_numbered': 'run' not in row, **row} for i, row in enumerate(table, 2)]
      dropped += [tuple(words.rsplit(': ', 1)) for words in left_out]
  for row in rows:
    row |= {ours: row[rename[ours]] for ours in LABELS if rename.get(ours) in row}
  rows, repeated = _unique(rows)
  dropped += [(name, 'exact duplicate of another row') for name in repeated]
  names = {name: rename.get(name, name) for name in (metric, *AXES)} | ({'x': rename.get(x, x)} if x else {})
  _check_columns(rows, [metric, *need, *(['x'] if x else [])], {**rename, **names}, group)
  kept, values = _clean(rows, names, [metric, *need, *(['x'] if x else [])], dropped)
  _check_comparable(kept, group)
  labels = [str(row.get('lineage') or row.get('config_hash') or row['run']) for row in kept]
  runs = [str(row['run']) for row in kept]
  return Points(metric, x, values.pop(metric), values, runs, np.unique(labels, return_inverse=True)[1], kept, curves,
                tuple(dropped), tuple(_notes(runs, labels)), tables.time_spent(all_folders))


def column(points: Points, name: str) -> list[Any]:
  """The values of any column of the source rows.

  Raises:
    UserError: a column that no row has (with the nearest name), or that some rows lack.
  """
  known = sorted({key for row in points.rows for key in row if not key.startswith('_')})
  if name not in known:
    raise UserError(f'{name}: no such column{nearest(name, known)}')
  if lacking := [run for run, row in zip(points.runs, points.rows) if row.get(name) in (None, '')]:
    raise UserError(f'{name}: missing in {len(lacking)} of {len(points)} points, such as {lacking[0]}')
  return [row[name] for row in points.rows]


def _exists(path):
  try:
    return path.exists()
  except ImportError as error:  # etils.epath reads buckets through fsspec's clients
    raise UserError(f'{path}: {error} (the package that reads such paths)') from error


def _add_run(folder, run, lines, half_line, metric, rows, dropped, curves):
  """Appends a run's final evaluation to `rows`, or to `dropped` with the reason."""
  name = folder.name
  if run.get('status') != 'finished':
    dropped.append((name, f'not finished (status {run.get("status")!r})'))
    return
  split, _, short = metric.rpartition('/')
  present = [s for s in ([split] if split else SPLITS[:2]) if any(line.get('split') == s for line in lines)]
  scored = [line for line in lines if present and line.get('split') == present[0] and short in line]
  if not scored:
    dropped.append((name, f'no {metric} in metrics.jsonl'))
    return
  if half_line:
    dropped.append((f'{name}/metrics.jsonl', 'half-written last line'))
  last, config, optimizer = scored[-1], run.get('config') or {}, (run.get('config') or {}).get('optimizer')
  lineage = run.get('lineage')
  rows.append({
      'run': name, 'folder': folder.absolute().parent.name, metric: last[short], 'split': present[0],
      'params': run.get('params'), 'params_non_embedding': run.get('params_non_embedding'),
      'data': (run.get('data') or {}).get('name'),
      'lineage': (lineage.get('trunk') or lineage.get('parent')) if isinstance(lineage, dict) else lineage,
      'learning_rate': optimizer.get('learning_rate') if isinstance(optimizer, dict) else None,
      'seed': config.get('seed'),
      'config_hash': run.get('config_hash'), '_config': config, '_metric': metric,
      '_val': next((number(line[short]) for line in lines[::-1] if line.get('split') == 'val' and short in line), None),
      **{k: last.get(k) for k in ('examples', 'unique_examples', 'flops', 'step', 'epochs')},
      **{key: value for key, value in flat(config).items() if '.' in key}})
  curve = [(number(line.get('examples')), number(line[short])) for line in scored]
  curves[name] = tuple(np.array([pair for pair in curve if None not in pair], float).reshape(-1, 2).T)


def flat(tree: Mapping[str, Any], path: str = '') -> dict[str, Any]:
  """{'model.width': 64, ...} of a nested config, so that any field of it can be a group or a hold-out."""
  out = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      out |= flat(value, f'{path}{key}.')
    elif isinstance(value, (str, int, float, bool)):
      out[f'{path}{key}'] = value
  return out


def _unique(rows):
  """The rows without exact duplicates (wherever they lie, and however numbered), and the names of the duplicates."""
  seen, kept, repeated = set(), [], []
  for row in rows:
    place = ('folder', 'run') if row.get('_numbered') else ('folder',)
    key = str(sorted((k, str(v)) for k, v in row.items() if k not in place))
    if key in seen:
      repeated.append(row['run'])
    else:
      seen.add(key)
      kept.append(row)
  return kept, repeated


def _check_columns(rows, needed, names, group):
  known = sorted({key for row in rows for key in row if not key.startswith('_')})
  for ours in [*needed, *(name for name in names if names[name] != name), *([group] if group else [])]:
    theirs = names.get(ours, ours)
    if theirs not in known and rows:
      mapped = f' (for {ours})' if theirs != ours else f'; --columns={ours}=THEIR_NAME maps a foreign one'
      raise UserError(f'no column {theirs!r} in the points{mapped}{nearest(theirs, known)}')


def _clean(rows, names, needed, dropped):
  """The rows whose needed values are numbers above 0, and {our name: values}; the others go to `dropped`."""
  kept = []
  for row in rows:
    if reason := next(filter(None, (_fault(names[name], row.get(names[name])) for name in needed)), None):
      dropped.append((str(row['run']), reason))
    else:
      kept.append(row)
  if not kept:
    raise UserError(f'no points left: {"; ".join(f"{what}: {why}" for what, why in dropped[:5]) or "nothing was read"}')
  whole = [name for name in names if not any(_fault(theirs := names[name], row.get(theirs)) for row in kept)]
  return kept, {name: np.array([number(row[names[name]]) for row in kept]) for name in whole}


def _fault(name, value):
  """What is wrong with a value, None where it is a number above 0."""
  if value in (None, ''):
    return f'no {name}'
  found = number(value)
  if found is None:
    return f'{name} is not a number'
  if not math.isfinite(found):
    return f'{name} is {found}'
  return None if found > 0 else f'{name} is not above 0'


def number(value: Any) -> float | None:
  """A value of a table as a float; None for what people would not read as that number: true, 1_000, and lists."""
  if isinstance(value, bool) or not isinstance(value, (int, float, str)):
    return None
  if isinstance(value, str) and ('_' in value or not value.isascii()):
    return None
  try:
    return float(value)
  except (ValueError, OverflowError):  # or a whole number beyond 1e308
    return None


def _check_comparable(rows, group):
  """Refuses points whose metric means different things."""
  for name, what in (('metric', 'metrics'), ('split', 'splits'), ('data', 'data sets')):
    found = sorted({str(row[name]) for row in rows if row.get(name) not in (None, '')})
    if len(found) > 1 and group != name:
      raise UserError(f'the points mix {what} ({", ".join(found[:4])}): their values are not comparable; choose '
                      f'one, or fit them apart with --group={name}')


def _notes(names, labels):
  several = sum(count > 1 for count in collections.Counter(names).values())
  if several:
    yield (f'{several} runs have several rows: checkpoints of a run are not independent, so runs are resampled whole; '
           'rows from before the end of a decaying schedule do not lie on the law of finished runs')
  if len(set(labels)) < len(set(names)):
    yield f'{len(set(names))} runs form {len(set(labels))} independent lineages'


def differences(points: Points, limit: int = 6) -> list[list[str]]:
  """How each run's config differs from its nearest neighbour's, for the report; empty lists for tables."""
  configs = [row.get('_config') for row in points.rows]
  index = [i for i, config in enumerate(configs) if config]
  out: list[list[str]] = [[] for _ in configs]
  if len(index) < 2:
    return out
  fields = [flat(configs[i]) for i in index]
  apart = np.zeros((len(index), len(index)), int)  # in how many fields two runs differ
  for key in sorted(set().union(*fields)):
    codes = np.unique([repr(f.get(key)) for f in fields], return_inverse=True)[1]
    if codes.any():
      apart += codes[:, None] != codes
  np.fill_diagonal(apart, np.iinfo(int).max)
  for i, nearest_run in zip(index, np.argmin(apart, axis=1)):
    out[i] = schema.differing_keys(configs[i], configs[index[nearest_run]])[:limit]
  return out
