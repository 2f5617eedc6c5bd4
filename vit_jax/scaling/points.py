"""The points of a law: one per finished run or table row, cleaned, with a record of everything dropped."""

import collections
import dataclasses
import hashlib
import json
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

LABELS = ('run', 'lineage', 'seed', 'learning_rate', 'code')  # columns with a meaning that are not inputs of a form
AXES = ('params', 'examples', 'unique_examples', 'flops')


@dataclasses.dataclass(frozen=True)
class Points:
  """n points.

  Attributes:
    metric: the name of the predicted metric.
    x_name: the name of the column x; None if none was chosen.
    y: [n], the values of the metric, above 0.
    columns: {name: [n]}, the numeric inputs (AXES and `x`) that every point has.
    runs: [n], the names of the runs.
    clusters: [n], the index of each point's cluster (a run, or a trunk with its branches), which the bootstrap draws as
      a whole.
    rows: [n], the source row of each point, for groups, hold-outs and the report.
    curves: {run: (examples [m], metric [m])}, the learning curves of run folders, for the figures only.
    dropped: (what, why) pairs.
    notes: sentences for the user.
    time_spent: {kind: seconds}, how all the runs that were read spent their time, including trunks and unfinished runs.
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
  time_spent: dict[str, float] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.y)

  def take(self, where: np.ndarray) -> 'Points':
    """The points selected by a boolean mask, or by indices in their order."""
    index = np.flatnonzero(where) if np.asarray(where).dtype == bool else np.asarray(where, int)
    runs = [self.runs[i] for i in index]
    return dataclasses.replace(
        self, y=self.y[index], columns={k: v[index] for k, v in self.columns.items()}, runs=runs,
        clusters=self.clusters[index], rows=[self.rows[i] for i in index],
        curves={k: v for k, v in self.curves.items() if k in set(runs)})

  @property
  def size(self) -> tuple[str, np.ndarray]:
    """(name, values [n]) of the measure of run size: x if one was chosen, else FLOPs, else N D."""
    for name in ('x', 'flops'):
      if name in self.columns:
        return self.x_name if name == 'x' else name, self.columns[name]
    if 'params' in self.columns and 'examples' in self.columns:
      return 'params x examples', self.columns['params'] * self.columns['examples']
    raise UserError(f'the points cannot be ordered by size: expected x, flops, or params and examples, got '
                    f'{", ".join(self.columns) or "none of these"}')

  def describe_dropped(self) -> list[str]:
    """A sentence for each reason, such as `3 dropped, not finished: a, b, c`."""
    reasons = collections.defaultdict(list)
    for what, why in self.dropped:
      reasons[why].append(what)
    return [f'{len(what)} dropped, {why}: {", ".join(what[:5])}{", ..." if len(what) > 5 else ""}'
            for why, what in reasons.items()]


def load(paths: Iterable[os.PathLike | str], metric: str = 'loss', x: str | None = None,
         columns: Mapping[str, str] | None = None, group: str | None = None, need: Iterable[str] = ()) -> Points:
  """Reads run folders (or folders of them) and tables into points.

  Args:
    paths: run folders, folders of run folders, and tables.
    metric: a column, or SPLIT/NAME of metrics.jsonl; a name without a split is read from `val`, else from `test`.
    x: the input of forms of one input, any column.
    columns: {our name: name in the tables}, such as {'params': 'N', 'loss': 'val/loss'}, for AXES, LABELS and metric.
    group: the column whose values are fitted separately; points of different groups need not be comparable.
    need: the required columns; rows without them are dropped. Other columns of AXES are kept if every row has them.

  Raises:
    UserError: a path that does not exist, a missing column, values that are not comparable, or no points left.
  """
  rename, rows, dropped, curves, all_folders = dict(columns or {}), [], [], {}, []
  for path in map(epath.Path, paths):
    if not _exists(path):
      raise UserError(f'{path}: file or folder not found')
    if path.is_dir():
      folders = tables.find_runs(path)
      if not folders:
        raise UserError(f'{path}: expected a run folder or a folder of them, found no run.json in or below it')
      read = list(zip(folders, tables.read_runs(folders)))
      damaged = [(folder.name, f'damaged: {run}') for folder, run in read if isinstance(run, UserError)]
      found = [(folder, *run) for folder, run in read if not isinstance(run, UserError)]
      dropped += damaged
      all_folders += folders
      runs = [run for run in found if run[1].get('status') != 'trunk']  # the branches of a trunk are the runs
      if not runs and not damaged:
        raise UserError(f'{path}: found {len(found)} trunks, but none of their branches')
      for folder, *run in runs:
        _add_run(folder, *run, rename.get(metric, metric), rows, dropped, curves)
    else:
      table, left_out = tables.read_table(path)
      rows += [{'run': f'{path.stem}:{i}', '_numbered': 'run' not in row, **row} for i, row in enumerate(table, 2)]
      dropped += [tuple(text.rsplit(': ', 1)) for text in left_out]
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
                tuple(dropped), (*_notes(runs, labels), *_codes(kept)), tables.time_spent(all_folders))


def _codes(rows):
  """A note where the points are of more than one version of the code."""
  counts = collections.Counter(row.get('code') for row in rows if row.get('code'))
  if len(counts) < 2:
    return []
  shown = ', '.join(f'{count} of {code}' for code, count in counts.most_common())
  return [f'the points are of {len(counts)} versions of the code ({shown}); --group=code fits them separately']


def column(points: Points, name: str) -> list[Any]:
  """The values of a column of the source rows.

  Raises:
    UserError: a column that no row has (the message suggests the nearest name), or that some rows lack.
  """
  known = sorted({key for row in points.rows for key in row if not key.startswith('_')})
  if name not in known:
    raise UserError(f'{name}: unknown column{nearest(name, known)}')
  if lacking := [run for run, row in zip(points.runs, points.rows) if row.get(name) in (None, '')]:
    raise UserError(f'{name}: expected a value in every point, missing in {len(lacking)} of {len(points)}, such as '
                    f'{lacking[0]}')
  return [row[name] for row in points.rows]


def _exists(path):
  try:
    return path.exists()
  except ImportError as error:  # etils.epath reads buckets through the clients of fsspec
    raise UserError(f'{path}: cannot be read without another package: {error}') from error


def _add_run(folder, run, lines, half_line, metric, rows, dropped, curves):
  """Appends the final evaluation of a run to `rows`, or the run to `dropped` with the reason."""
  name = folder.name
  if run.get('status') != 'finished':
    dropped.append((name, f'not finished (status {run.get("status")!r})'))
    return
  split, _, short = metric.partition('/')
  split, short = (split, short) if split in SPLITS else ('', metric)
  present = [s for s in ([split] if split else SPLITS[:2]) if any(line.get('split') == s for line in lines)]
  scored = [line for line in lines if present and line.get('split') == present[0] and short in line]
  if not scored:
    dropped.append((name, f'no {metric} in metrics.jsonl'))
    return
  if half_line:
    dropped.append((f'{name}/metrics.jsonl', 'incomplete last line'))
  last, config = _of_results(scored, run), run.get('config') or {}
  optimizer = config.get('optimizer')
  lineage = run.get('lineage')
  lineage = (lineage.get('trunk') or lineage.get('parent')) if isinstance(lineage, dict) else lineage
  rows.append({
      'run': name, 'folder': folder.absolute().parent.name, metric: last[short], 'split': present[0],
      'params': run.get('params'), 'params_non_embedding': run.get('params_non_embedding'),
      'data': (run.get('data') or {}).get('name'),
      'lineage': _trunk(config) or lineage, 'code': (run.get('codes') or [run])[-1].get('code'),
      'learning_rate': optimizer.get('learning_rate') if isinstance(optimizer, dict) else None,
      'seed': config.get('seed'),
      'config_hash': run.get('config_hash'), '_config': config, '_metric': metric,
      'family': config.get('family'), 'objective': config.get('objective', 'classify'),
      '_val': next((number(line[short]) for line in lines[::-1] if line.get('split') == 'val' and short in line), None),
      **{k: last.get(k) for k in ('examples', 'unique_examples', 'flops', 'step', 'epochs')},
      **{key: value for key, value in flat(config).items() if '.' in key}})
  curve = [(number(line.get('examples')), number(line[short])) for line in scored]
  curves[name] = tuple(np.array([pair for pair in curve if None not in pair], float).reshape(-1, 2).T)


def _of_results(scored, run):
  """The row that a run's results are of: the best one where it stopped early, else the last."""
  step = (run.get('results') or {}).get('step')
  return next((line for line in scored if step is not None and line.get('step') == step), scored[-1])


def _trunk(config):
  """What runs share that are branches of one trunk, trained once or once for each: they are no independent draws.

  It is the config without length, cooldown and evaluation; None for schedules that have no shared part.
  """
  schedule = config.get('schedule') or {}
  if schedule.get('name') not in ('wsd', 'rsqrt') or (config.get('evaluate') or {}).get('patience'):
    return None
  apart = {'system', 'evaluate', 'schedule', 'train'}
  shared = {key: value for key, value in config.items() if key not in apart}
  shared['schedule'] = {key: value for key, value in schedule.items() if key != 'cooldown_fraction'}
  lengths = ('steps', 'epochs', 'examples', 'flops')
  shared['train'] = {key: value for key, value in (config.get('train') or {}).items() if key not in lengths}
  return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:10]


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
  """The leaves of a nested config as {'model.width': 64, ...}, so that any field can define groups or hold-outs."""
  return {key: value for key, value in schema.flat(config).items() if isinstance(value, (str, int, float, bool))}


def _unique(rows):
  """The rows without exact duplicates, and the names of the duplicates; folders and row numbers are not compared."""
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
      mapped = f' (for {ours})' if theirs != ours else f'; --columns={ours}=NAME reads it from a column of another name'
      raise UserError(f'no column {theirs!r} in the points{mapped}{nearest(theirs, known)}')


def _clean(rows, names, needed, dropped):
  """The rows whose needed values are numbers above 0, and {our name: values}; appends the others to `dropped`."""
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
  """What is wrong with a value; None for a number above 0."""
  if value in (None, ''):
    return f'no {name}'
  found = number(value)
  if found is None:
    return f'{name} is not a number'
  if not math.isfinite(found):
    return f'{name} is {found}'
  return None if found > 0 else f'{name} is not above 0'


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


def _check_comparable(rows, group):
  """Raises UserError if the metric does not mean the same in all rows."""
  for name, what in (('metric', 'metrics'), ('split', 'splits'), ('data', 'data sets'), ('objective', 'objectives')):
    found = sorted({str(row[name]) for row in rows if row.get(name) not in (None, '')})
    if len(found) > 1 and group != name:
      raise UserError(f'the points mix {what} ({", ".join(found[:4])}): their values are not comparable. Choose '
                      f'one, or fit them separately with --group={name}')


def _notes(names, labels):
  several = sum(count > 1 for count in collections.Counter(names).values())
  if several:
    yield (f'{several} runs have several rows. Checkpoints of a run are not independent, so whole runs are resampled. '
           'Rows from before the end of a decaying schedule do not follow the law of finished runs')
  if len(set(labels)) < len(set(names)):
    yield f'{len(set(names))} runs form {len(set(labels))} independent lineages'


def differences(points: Points, limit: int = 6) -> list[list[str]]:
  """How the config of each run differs from the most similar one, for the report; empty lists for tables."""
  configs = [row.get('_config') for row in points.rows]
  index = [i for i, config in enumerate(configs) if config]
  out: list[list[str]] = [[] for _ in configs]
  if len(index) < 2:
    return out
  fields = [flat(configs[i]) for i in index]
  distance = np.zeros((len(index), len(index)), int)  # the number of fields in which two runs differ
  for key in sorted(set().union(*fields)):
    codes = np.unique([repr(f.get(key)) for f in fields], return_inverse=True)[1]
    if codes.any():
      distance += codes[:, None] != codes
  np.fill_diagonal(distance, np.iinfo(int).max)
  for i, nearest_run in zip(index, np.argmin(distance, axis=1)):
    out[i] = schema.differing_keys(configs[i], configs[index[nearest_run]])[:limit]
  return out
