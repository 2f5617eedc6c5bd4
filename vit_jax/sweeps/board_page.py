"""The page of many runs, live: a table with what differs, how far each is, curves overlaid, and the law so far."""

import concurrent.futures
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from vit_jax import durable, records, schema
from vit_jax.drawing import page
from vit_jax.errors import UserError
from vit_jax.scaling import law_page, payload, tables
from vit_jax.sweeps import board_law, folders, standing
from vit_jax.sweeps.jobs import Job

NAME = 'index.html'
_SCRIPT = Path(__file__).with_name('board.js')
_AT_ONCE = 16  # folders that are read at the same time
_SECONDS = 10  # between two states of a live page, at least
_BUSY = 20  # a page or a law that took s seconds is not made again within this many times s
_VERTICES = 20_000  # of all curves together ..
_MOST, _FEWEST = 200, 8  # .. and of one
_LIVE_LAW = 500  # finished runs; reading and fitting more while runs are in progress would hold them up
_COLUMNS = 8  # keys that differ and are shown; of more, those with fewest values
_NAMED = ('family', 'objective', 'tag')  # a headline that compares others would answer what nobody has asked


class Board:
  """The page of some runs. What has finished is read once."""

  def __init__(self, title: str, jobs: Sequence[Job], path: os.PathLike | str, group: str | None = None):
    """Prepares the page.

    Args:
      title: the name of the sweep or the folders.
      jobs: the runs; trunks are left out.
      path: the file to write, local or in a bucket.
      group: the column whose values are compared; default: the first of family, objective and tag with two
        values.
    """
    self._title, self.path, self._group = title, epath.Path(path), group
    self._jobs = [job for job in jobs if not job.saves]
    self._finished: dict[str, dict[str, Any]] = {}
    self._ends: dict[str, tuple[float, float, float]] = {}  # predicted while the run had not finished
    self._law, self._law_of, self._law_due = board_law.SoFar(None, 'no law yet: no run has finished'), 0, 0.0
    self._due = 0.0

  def poll(self) -> None:
    """Writes the page if it is due; called often while runs are in progress. The page reloads itself."""
    if time.monotonic() >= self._due:
      begun = time.monotonic()
      try:
        self.write(live=True)
      except (OSError, durable.Unreachable):
        pass  # a full disk, or a store that does not answer: no run depends on the page, and it is tried again
      self._due = time.monotonic() + max(_SECONDS, _BUSY * (time.monotonic() - begun))

  def write(self, live: bool = False) -> None:
    """Writes the page; a live one reloads itself."""
    durable.write(self.path, self.render(live))

  def render(self, live: bool = False) -> str:
    """The page as HTML."""
    with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:  # most of the time is spent waiting for a bucket
      runs = list(pool.map(self._read, self._jobs))
    differing = _differing([run['fields'] for run in runs])
    column = self._group or _two_groups([run['fields'] for run in runs])
    self._refit(runs, column, live)
    law = self._law
    done = sum(run['status'] == 'finished' for run in runs)
    counts = f'{done} of {len(runs)} runs finished'
    headline = law.headline or f'{self._title}: {counts}'
    most = max(_FEWEST, min(_MOST, _VERTICES // max(len(runs), 1)))
    data = {'headline': headline, 'title': self._title, 'counts': _counts(runs), 'live': live and _SECONDS,
            'written': time.strftime('%Y-%m-%d %H:%M:%S'), 'why_not': law.why_not, 'laws': law.groups,
            'columns': differing, 'runs': _colored([self._row(run, differing, most) for run in runs], law),
            'most': most}
    plain = [headline, counts, *([law.why_not] if law.why_not else []), *(
        f'{run["name"]}: {run["status"]}, step {run["step"]:,} {run["left"] or run["why"]}' for run in data['runs'])]
    return page.render(f'{self._title}: {counts}', plain, law_page.short(data), law_page.FIGURE, _SCRIPT)

  def _row(self, run, differing, most):
    """The entries of a run on the page."""
    split, xs, ys = run['curve']
    group, finished = str(run['fields'].get(self._law.column)) if self._law.column else '', run['status'] == 'finished'
    if not finished and (end := board_law.predicted_end(self._law, run | {'group': group})):
      self._ends[run['folder']] = end
    end = self._ends.get(run['folder'])
    return {**{name: run[name] for name in ('name', 'status', 'why', 'step', 'steps', 'loss', 'val_loss', 'params')},
            'group': group, 'end': end, 'left': board_law.departure(end, run['val_loss'], finished),
            'split': split, 'x': _thinned(xs, most), 'y': _thinned(ys, most),
            'fields': ['' if run['fields'].get(key) is None else str(run['fields'][key]) for key in differing]}

  def _read(self, job):
    """What the files of a run say; kept once it has finished."""
    if job.folder not in self._finished:
      run = _read(job)
      if run['status'] != 'finished':
        return run
      self._finished[job.folder] = run
    return self._finished[job.folder]

  def _refit(self, runs, column, live):
    """Fits the law again if runs have finished since; while others run, only if the last fit was not recent."""
    finished = [run['folder'] for run in runs if run['status'] == 'finished']
    if len(finished) == self._law_of or (live and time.monotonic() < self._law_due):
      return
    if live and len(finished) > _LIVE_LAW:
      self._law = board_law.SoFar(None, f'the law of {len(finished):,} runs is fitted at the end')
      return
    begun = time.monotonic()
    self._law, self._law_of = board_law.fit(finished, self._group, column), len(finished)
    self._law_due = time.monotonic() + _BUSY * (time.monotonic() - begun)


def find(paths: Sequence[str]) -> list[Job]:
  """The runs in folders: of a sweep those of its plans, else every run folder at or below a path.

  Raises:
    UserError: a folder without runs.
  """
  jobs = {}
  for path in map(epath.Path, paths):
    if (path / folders.PLANS).exists():
      found = standing.read(os.fspath(path)).jobs
    else:
      found = [standing.as_it_is(folder) for folder in tables.find_runs(path)] if path.is_dir() else []
    if not found:
      raise UserError(f'{path}: expected a run folder or a folder of them, found no run.json in or below it')
    jobs |= {job.folder: job for job in found}
  return list(jobs.values())


def _read(job):
  there = standing.of(job.folder)
  folder, run = epath.Path(job.folder), folders.readable_run(job.folder)
  config = run.get('config') or {}
  fields = {key: value for key, value in schema.flat(config).items() if not key.startswith('system.')}
  if not fields:  # it waits: its arguments say what is not the recipe's
    given = [word.removeprefix('--config.').partition('=') for word in job.arguments if word.startswith('--config.')]
    fields = {key: value for key, _, value in given if not key.startswith('system.')}
  batch = (config.get('data') or {}).get('batch_size')
  return {'name': job.name, 'folder': job.folder, 'status': there.status, 'why': _why(folder, there),
          'step': there.step, 'steps': job.steps or run.get('steps') or 0, 'loss': there.loss,
          'val_loss': there.val_loss, 'fields': fields,
          'params': run.get('params'), 'examples': job.steps * batch if batch and job.steps else None,
          'curve': _curve(folder)}


def _why(folder, there):
  """Why a run failed or is left out; '' for the others."""
  if there.status == 'damaged':
    return folders.damage(folder)
  if there.status != 'failed':
    return ''
  last = records.read_events(folder / records.EVENTS)[-1]
  return ': '.join(str(last[name]) for name in ('why', 'said') if last.get(name))


def _curve(folder):
  """(split, examples, losses): of validation where there is a curve, else of training."""
  rows = [row for row in records.readable_rows(folder / records.METRICS, records.ROW)[0]
          if _is_number(row.get('loss')) and _is_number(row.get('examples', row['step']))]
  for split in (tables.SPLITS[0], 'train'):
    there = [row for row in rows if row['split'] == split]
    if len(there) > 1 or split == 'train':
      return split, [row.get('examples', row['step']) for row in there], [row['loss'] for row in there]


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _thinned(values, most):
  """At most `most` of the values, evenly spread, with the first and the last."""
  if len(values) <= most:
    return list(values)
  return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _differing(fields: Sequence[Mapping[str, Any]]) -> list[str]:
  """The keys that do not have the same value in all runs, in the order of the config."""
  every = dict.fromkeys(key for run in fields for key in run)
  values = {key: {repr(run.get(key)) for run in fields if run} for key in every}
  keys = sorted((key for key in values if len(values[key]) > 1), key=lambda key: len(values[key]))[:_COLUMNS]
  return [key for key in values if key in keys]


def _two_groups(fields):
  """Of the keys that usually name what is compared, the first by which the runs are two groups; None if none is."""
  values = {key: {run.get(key) for run in fields if run} for key in _NAMED}
  return next((key for key in _NAMED if len(values[key] - {None}) == 2), None)


def _counts(runs):
  found = [run['status'] for run in runs]
  return ', '.join(f'{found.count(status)} {status}' for status in dict.fromkeys(found))


def _colored(rows, law):
  """The rows with the colors of their groups, else of their sizes."""
  sizes = [math.log(row['params']) for row in rows if row['params']]
  low, high = (min(sizes), max(sizes)) if sizes else (0.0, 0.0)
  of_group = {group['name']: group['color'] for group in law.groups if group['name']}
  ordered = lambda n: payload.ordered_color((math.log(n) - low) / (high - low) if n and high > low else 0.4)
  return [row | {'color': of_group.get(row['group']) or ordered(row['params'])} for row in rows]
