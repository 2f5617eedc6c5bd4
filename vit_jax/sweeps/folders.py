"""The folder of a sweep, and the status of each run in it. This module only reads files and needs no JAX or devices.

  WORKDIR/NAME-HASH/     a run; it is found by its config_hash, NAME is for people
  WORKDIR/trunks/HASH/   a trunk that runs share
  WORKDIR/plans/         the plans of the sweeps that were started here
"""

import dataclasses
import json
import os
from typing import Any

from etils import epath

from vit_jax import durable, provenance, records
from vit_jax.errors import UserError
from vit_jax.survival import lock, origin
from vit_jax.sweeps.sweep_plan import Plan, PlannedRun, PlannedTrunk

LOG = 'log.txt'


@dataclasses.dataclass(frozen=True)
class Standing:
  """The progress of a run; `status` is 'finished', 'running', 'failed', 'stopped' (can be resumed) or 'waiting'."""
  status: str
  step: int = 0
  val_loss: float | None = None


def run_folder(workdir: os.PathLike, run: PlannedRun) -> epath.Path:
  """The folder of a run: the one with its config_hash, under whatever name it was started, else a new one."""
  workdir = epath.Path(workdir)
  if workdir.exists():
    for folder in sorted(workdir.glob(f'*-{run.config_hash}')):
      return folder
  return workdir / f'{run.name}-{run.config_hash}'


def trunk_folder(workdir: os.PathLike, trunk_hash: str) -> epath.Path:
  """The folder of a trunk."""
  return epath.Path(workdir) / 'trunks' / trunk_hash


def is_finished(folder: os.PathLike) -> bool:
  """Whether a run has finished."""
  run = records.read_run(folder)
  return bool(run) and run.get('status') == 'finished'


def by_other_code(folder: os.PathLike) -> bool:
  """Whether a run was trained by other code than today's."""
  return origin.by_other_code(records.read_run(folder), provenance.code())


def trained_steps(folder: os.PathLike) -> int:
  """The length in steps of a trunk or a run that has finished; else 0."""
  return ((records.read_run(folder) or {}).get('results') or {}).get('steps', 0)


def standing(folder: os.PathLike) -> Standing:
  """The progress of a run, read from its files."""
  folder = epath.Path(folder)
  rows = records.read_rows(folder / records.METRICS)
  step = max((row['step'] for row in rows), default=0)
  val_loss = next((row['loss'] for row in reversed(rows) if row['split'] == 'val'), None)
  if is_finished(folder):
    return Standing('finished', step, val_loss)
  if lock.is_held(folder):
    return Standing('running', step, val_loss)
  events = records.read_rows(folder / records.EVENTS)
  if events and events[-1]['event'] == 'failed':
    return Standing('failed', step, val_loss)
  return Standing('stopped' if events else 'waiting', step, val_loss)


def measured_speeds(workdir: os.PathLike) -> list[tuple[float, float]]:
  """(FLOPs per example, FLOP/s) of each run in a sweep's folder that has trained; speeds are medians of a log."""
  out = []
  workdir = epath.Path(workdir)
  for path in sorted(workdir.glob(f'*/{records.RUN}')) if workdir.exists() else ():
    rows = records.read_rows(path.parent / records.EVENTS)
    speeds = sorted(row['images_per_s'] for row in rows if row['event'] == 'train')
    flops = (records.read_run(path.parent) or {}).get('flops_per_example_train')
    if speeds and flops:
      out.append((float(flops), speeds[len(speeds) // 2] * flops))
  return out


def write_plan(workdir: os.PathLike, name: str, plan: Plan) -> None:
  """Writes a plan into the sweep's folder, for `read_plans`."""
  durable.write(epath.Path(workdir) / 'plans' / f'{name}.json', json.dumps(dataclasses.asdict(plan), indent=1) + '\n')


def read_plans(workdir: os.PathLike) -> list[Plan]:
  """The plans of the sweeps that were started in a folder.

  Raises:
    UserError: no sweep was started there.
  """
  plans = epath.Path(workdir) / 'plans'
  found = sorted(plans.glob('*.json')) if plans.exists() else []
  if not found:
    raise UserError(f'--workdir={workdir}: no sweep has been started in this folder')
  return [_plan(json.loads(path.read_text())) for path in found]


def _plan(fields: dict[str, Any]) -> Plan:
  build = lambda cls, values: cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
  return Plan(**fields | {'runs': tuple(build(PlannedRun, run) for run in fields['runs']), 'notes': (),
                          'trunks': tuple(build(PlannedTrunk, trunk) for trunk in fields['trunks'])})
