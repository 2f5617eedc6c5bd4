"""The points of a law: one per finished run or table row, cleaned, with a record of everything dropped."""

import collections
import dataclasses
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from vit_jax import schema
from vit_jax.errors import UserError, nearest
from vit_jax.scaling import curve_rows, expression, tables, written
from vit_jax.scaling import rows as rows_lib
from vit_jax.scaling.run_rows import flat, lineages, row_of
from vit_jax.scaling.tables import Row

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
    if not self.columns:
      raise UserError('the points cannot be ordered by size: expected x, flops, or params and examples')
    return ' x '.join(self.columns), np.prod(list(self.columns.values()), axis=0)

  def describe_dropped(self) -> list[str]:
    """A sentence for each reason, such as `3 dropped, not finished: a, b, c`; values follow names: a ('1M')."""
    reasons = collections.defaultdict(list)
    for what, why in self.dropped:
      reason, quote, value = why.partition(": '")
      reasons[reason].append(f"{what} ('{value})" if quote else what)
    return [f'{len(what)} dropped, {why}: {", ".join(what[:5])}{", ..." if len(what) > 5 else ""}'
            for why, what in reasons.items()]


def load(paths: Iterable[os.PathLike | str], metric: str = 'loss', x: str | None = None,
         columns: Mapping[str, str] | None = None, group: str | None = None, need: Iterable[str] = (),
         where: str | None = None, best_by: str = '', pool: Collection[str] = (), form: str = '',
         also: Collection[str] = (), whole: curve_rows.Curves | None = None) -> Points:
  """Reads run folders (or folders of them) and tables into points.

  Args:
    paths: run folders, folders of run folders, and tables.
    metric: a column, or SPLIT/NAME of metrics.jsonl; a name without a split is read from `val`, else from `test`.
    x: the input of forms of one input, any column or an expression over columns, such as params*examples.
    columns: {our name: name in the tables}, such as {'params': 'N', 'loss': 'val/loss'}, for AXES, LABELS and metric.
    group: the column whose values are fitted separately; points of different groups need not be comparable.
    need: the required columns; rows without them are dropped. Other columns of AXES are kept if every row has them.
    where: an expression over columns; rows that it is not true of are left out.
    best_by: the metric that `tuned.best_of` compares runs by; '' for `metric`.
    pool: columns in which points may differ although the metric then has another meaning, such as classes.
    form: a written form (see `written`); the names in it that are columns are needed too.
    also: more metrics to read of run folders, into the rows.
    whole: how to read every evaluation of a run as a point (see `curve_rows`); None for the last one.

  Raises:
    UserError: a path that does not exist, a table where curves are asked for, a missing column, values that are not
      comparable, or no points left.
  """
  rename, curves, all_folders = dict(columns or {}), {}, []
  rows, dropped = [], []
  for path in map(epath.Path, paths):
    if not _exists(path):
      raise UserError(f'{path}: file or folder not found')
    if path.is_dir():
      all_folders += _add_runs(path, rename.get(metric, metric), best_by, also, rows, dropped, curves, whole)
    elif whole:
      raise UserError(f'--curves: {path} is a table; expected run folders, whose run.json has the schedule')
    else:
      table, left_out = tables.read_table(path)
      rows += [{'run': f'{path.stem}:{i}', '_numbered': 'run' not in row, **row} for i, row in enumerate(table, 2)]
      dropped += [tuple(text.rsplit(': ', 1)) for text in left_out]
  for row in rows:
    row |= {ours: row[rename[ours]] for ours in LABELS if rename.get(ours) in row}
  if where:
    chosen = expression.where(rows, where)
    dropped += [(row['run'], f'not {where}') for row, keep in zip(rows, chosen) if not keep]
    rows = [row for row, keep in zip(rows, chosen) if keep]
  names = {name: rename.get(name, name) for name in (metric, *AXES)} | ({'x': rename.get(x, x)} if x else {})
  if x:
    _derive(rows, names)
  inputs = _inputs(form, rows, names) if form else {}
  names = inputs | names
  rows, copies, notes = rows_lib.distinct(rows, names[metric])
  dropped += copies
  needed = list(dict.fromkeys([metric, *need, *(['x'] if x else []), *inputs]))
  _check_columns(rows, needed, {**rename, **names}, group)
  kept, values = rows_lib.clean(rows, names, needed, dropped)
  pool = {*pool, *(names[name] for name in needed)}  # an input is no label, even if it is called data
  rows_lib.check_comparable(kept, group, pool)
  labels = lineages(kept)
  runs = [str(row['run']) for row in kept]
  notes += [*_notes(runs, labels, whole), *rows_lib.notes(kept, values, group, pool)]
  return Points(metric, x, values.pop(metric), values, runs, np.unique(labels, return_inverse=True)[1], kept, curves,
                tuple(dropped), tuple(notes), tables.time_spent(all_folders))


def _add_runs(path, metric, best_by, also, rows, dropped, curves, whole):
  """Appends the runs in a folder to `rows` and `curves`, or to `dropped` with the reason; returns their folders."""
  folders = tables.find_runs(path)
  if not folders:
    raise UserError(f'{path}: expected a run folder or a folder of them, found no run.json in or below it')
  read = list(zip(folders, tables.read_runs(folders)))
  damaged = [(folder.name, f'damaged: {run}') for folder, run in read if isinstance(run, UserError)]
  found = [(folder, *run) for folder, run in read if not isinstance(run, UserError)]
  dropped += damaged
  runs = [run for run in found if whole or run[1].get('status') != 'trunk']  # the branches of a trunk are the runs
  if not runs and not damaged:
    raise UserError(f'{path}: found {len(found)} trunks, but none of their branches')
  for folder, run, lines, half_line in runs:
    names = folder.name, folder.absolute().parent.name
    row = (curve_rows.rows_of(*names, run, lines, metric, whole) if whole else
           row_of(*names, run, lines, metric, best_by, also))
    if isinstance(row, str):
      dropped.append((folder.name, row))
      continue
    if half_line:
      dropped.append((f'{folder.name}/metrics.jsonl', 'incomplete last line'))
    rows += row[0] if whole else [row[0]]
    curves[folder.name] = row[1]
  return folders


def _inputs(form, rows, names):
  """{name: column} of the inputs of a written form. Where no column is called params, N is a column of that name."""
  known = {key for row in rows for key in row if not key.startswith('_')}
  for alias, name in written.ALIASES.items():
    if names.get(name) == name and name not in known and alias in known:
      names[name] = alias
  found = {name: names.get(name, name) for name in written.names(form, known)}
  return {name: column for name, column in found.items() if column in known}


def _derive(rows, names):
  """Adds the column x to the rows where it is an expression over columns and none of that name is there."""
  text, known = names['x'], sorted({key for row in rows for key in row if not key.startswith('_')})
  if text in known or text.replace('.', '').isidentifier():
    return
  tree = expression.parse(text, 'x', known)
  values = expression.evaluate(tree, lambda name: expression.values(rows, names.get(name, name)), 'x', known)
  for row, value in zip(rows, np.broadcast_to(values, len(rows))):
    row[text] = float(value)


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


def _check_columns(rows, needed, names, group):
  known = sorted({key for row in rows for key in row if not key.startswith('_')})
  for ours in [*needed, *(name for name in names if names[name] != name), *([group] if group else [])]:
    theirs = names.get(ours, ours)
    if theirs not in known and rows:
      mapped = f' (for {ours})' if theirs != ours else f'; --columns={ours}=NAME reads it from a column of another name'
      raise UserError(f'no column {theirs!r} in the points{mapped}{nearest(theirs, known)}')


def _notes(names, labels, whole):
  several = sum(count > 1 for count in collections.Counter(names).values())
  if whole:
    memory = '' if whole.decay is None else f', with a decay of {whole.decay:g} in S2'
    yield (f'every evaluation of {len(set(names))} runs is a point{memory}. Those of a run are not independent, so '
           'whole runs are resampled')
  elif several:
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
