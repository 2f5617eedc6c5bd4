"""Predictions that are registered before their runs, and graded once these exist.

A registration is a JSON file: what was predicted at which targets, from which points (a digest and the names of the
runs), by which code, how and when. A file is never overwritten. Grading reads the same columns of whatever is there,
and takes the points at a target that the law had not seen.
"""

import datetime
import hashlib
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath
from scipy import stats

from vit_jax import durable, provenance
from vit_jax.errors import UserError
from vit_jax.scaling import target as target_lib
from vit_jax.scaling.bootstrap import LEVEL
from vit_jax.scaling.points import Points

KIND = 'vit_jax.law prediction'
CLOSE = 0.01  # the relative difference of an input within which a run is at a target


def register(path: str, points: Points, predictions: Sequence[dict], how: dict[str, Any]) -> dict[str, Any]:
  """Writes a registration.

  Args:
    path: the file, .json.
    points: the points that the law was fitted to.
    predictions: rows {target, metric, predicted, ci95, ci95_run}, with `group` where there are groups.
    how: what made the law and reads the runs: {command, form, coefficients, read {x, columns, where, group}}.

  Returns:
    The registration.

  Raises:
    UserError: a prediction has no interval.
  """
  file = epath.Path(path)
  if any(row['ci95_run'] is None for row in predictions):
    raise UserError(f'--register={path}: expected predictions with intervals, got a law that has none')
  out = {'kind': KIND, 'date': datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds'),
         'code': code(), 'commit': provenance.commit(), 'points': digest(points), 'n': len(points),
         'runs': sorted(set(points.runs)), 'predictions': list(predictions), **how}
  durable.write(file, json.dumps(out, indent=1) + '\n')
  return out


def check(path: str, targets: str | None, replicates: int) -> None:
  """Raises UserError where a registration could not be written: before anything is fitted."""
  file = epath.Path(path)
  if file.suffix != '.json':
    raise UserError(f'--register={path}: expected a file that ends in .json')
  if file.exists():
    raise UserError(f'--register={path}: exists; a registered prediction is not changed. Choose another file')
  if not (targets and replicates):
    raise UserError(f'--register={path}: expected --target, and --bootstrap above 0 for intervals')


def code() -> str:
  """A digest of the sources that fit laws, without comments and docstrings."""
  files = sorted(pathlib.Path(__file__).parent.glob('*.py'))
  digests = [f'{file.name} {provenance.of_source(file.read_text())}' for file in files]
  return hashlib.sha256('\n'.join(digests).encode()).hexdigest()[:16]


def digest(points: Points) -> str:
  """A digest of the names, inputs and values of points, whatever their order."""
  rows = sorted(repr((run, float(y), *(float(values[i]) for _, values in sorted(points.columns.items()))))
                for i, (run, y) in enumerate(zip(points.runs, points.y)))
  return hashlib.sha256('\n'.join([points.metric, *sorted(points.columns), *rows]).encode()).hexdigest()[:16]


def read(path: str) -> list[dict[str, Any]]:
  """The registrations in a file, or in the files of a folder that are some, oldest first; each has its `file`.

  Raises:
    UserError: no such file, a file that is none, or none in a folder.
  """
  place, out = epath.Path(path), []
  if not place.exists():
    raise UserError(f'--score={path}: file or folder not found')
  for file in sorted(place.glob('*.json')) if place.is_dir() else [place]:
    try:
      found = json.loads(file.read_text())
    except ValueError:
      found = None
    if isinstance(found, dict) and found.get('kind') == KIND:
      out.append(found | {'file': file.name})
    elif not place.is_dir():
      raise UserError(f'--score={path}: expected a file that --register wrote')
  if not out:
    raise UserError(f'--score={path}: found no file that --register wrote')
  return sorted(out, key=lambda found: found['date'])


def grade(registration: dict[str, Any], prediction: dict[str, Any], points: Points) -> list[dict]:
  """The grades of one prediction, a row for each new run at its target; none while there is no such run.

  Args:
    registration: see `read`.
    prediction: one of its predictions.
    points: points that are there now, read as the registration says.
  """
  close = np.ones(len(points), bool)
  for name, value in prediction['target'].items():
    found = points.columns.get('x' if name == points.x_name else name)
    close &= np.zeros(len(points), bool) if found is None else np.abs(np.log(found / value)) <= CLOSE
  low, high = prediction['ci95_run']
  seen, out = set(registration['runs']), []
  for i in np.flatnonzero(close):
    if points.runs[i] not in seen:
      measured = float(points.y[i])
      out.append({'date': registration['date'], 'file': registration['file'], 'run': points.runs[i],
                  'target': target_lib.describe(prediction['target']), 'metric': prediction['metric'],
                  'group': prediction.get('group', ''), 'predicted': prediction['predicted'], 'ci95_run': [low, high],
                  'measured': measured, 'error': measured / prediction['predicted'] - 1,
                  'inside': bool(low <= measured <= high)})
  return out


def calibration(rows: Sequence[dict]) -> dict[str, Any]:
  """How often graded predictions hold: {n, inside, expected, p, high, over_time, words}.

  `p` is the probability of so few inside by a binomial test; `over_time` has the share inside up to each registration.
  """
  n, inside = len(rows), sum(row['inside'] for row in rows)
  over_time = []
  for date in sorted({row['date'] for row in rows}):
    so_far = [row['inside'] for row in rows if row['date'] <= date]
    over_time.append({'date': date, 'n': len(so_far), 'inside': sum(so_far)})
  p = float(stats.binom.cdf(inside, n, LEVEL)) if n else 1.0
  words = f'{inside} of {n} graded runs inside their registered {100 * LEVEL:.0f}% intervals' if n else (
      'nothing to grade yet')
  if p < 0.05:
    words += f': too few (p = {p:.2g}), so the intervals are too narrow'
  return {'n': n, 'inside': inside, 'expected': LEVEL * n, 'p': p, 'high': sum(row['error'] < 0 for row in rows),
          'over_time': over_time, 'words': words}


def score(path: str, load: Callable[[str, dict[str, Any]], Points]) -> dict[str, Any]:
  """Grades all registrations at `path`.

  Args:
    path: a file or folder (see `read`).
    load: maps (metric, read) of a registration to the points that are there now.

  Returns:
    {rows, waiting, calibration}: a row for each graded run; what waits for a run, as rows {date, file, target, metric}.
  """
  rows, waiting = [], []
  for registration in read(path):
    for prediction in registration['predictions']:
      points = load(prediction['metric'], registration['read'])
      if group := prediction.get('group'):
        name = registration['read']['group']
        points = points.take(np.array([str(row.get(name)) == group for row in points.rows]))
      found = grade(registration, prediction, points)
      rows += found
      if not found:
        waiting.append({'date': registration['date'], 'file': registration['file'], 'metric': prediction['metric'],
                        'group': prediction.get('group', ''), 'target': target_lib.describe(prediction['target'])})
  return {'rows': rows, 'waiting': waiting, 'calibration': calibration(rows)}
