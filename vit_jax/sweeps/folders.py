"""The folder of a sweep, and the status of each run in it. This module only reads files and needs no JAX or devices.

  WORKDIR/NAME-HASH/     a run; it is found by its config_hash, NAME is for people
  WORKDIR/trunks/HASH/   a trunk that runs share
  WORKDIR/plans/         the plans of the sweeps that were started here
"""

import dataclasses
import json
import math
import os
import threading

from etils import epath

from vit_jax import durable, provenance, records, schema
from vit_jax.errors import UserError
from vit_jax.survival import origin
from vit_jax.sweeps.sweep_plan import Plan, PlannedRun, PlannedTrunk

LOG, PLANS = 'log.txt', 'plans'
_PATIENCE_SECONDS = 20


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
  return readable_run(folder).get('status') == 'finished'


def by_other_code(folder: os.PathLike) -> bool:
  """Whether a run was trained by other code than today's."""
  record = records.read_run(folder) or {}
  return origin.by_other_code(record, provenance.code(record.get('plug_ins', ())))


def trained_steps(folder: os.PathLike) -> int:
  """The length in steps of a trunk or a run that has finished; else 0."""
  return (readable_run(folder).get('results') or {}).get('steps', 0)


def has_run(folder: os.PathLike) -> bool:
  """Whether there is a readable run.json, without which the checkpoints of a trunk are not used."""
  return bool(readable_run(folder))


def damage(folder: os.PathLike) -> str | None:
  """What is wrong with a run's run.json, and what to do; None if it can be used, or does not exist.

  Whether such a run has finished is unknown, and `vit_jax.main` refuses its folder: a sweep leaves it out.
  """
  try:
    run = records.read_run(folder)
  except UserError as error:
    return str(error)
  if run is None or run.get('status'):
    return None
  return f'{os.fspath(folder)}/{records.RUN}: no status; was the file damaged? {records.way_on(folder)}'


def remarks(folder: os.PathLike) -> list[str]:
  """What is wrong with the logs of a run, and what it went round. Nothing of it keeps a run from being finished."""
  folder = epath.Path(folder)
  events, bad_events = records.readable_rows(folder / records.EVENTS, records.EVENT)
  _, bad_rows = records.readable_rows(folder / records.METRICS, records.ROW)
  out = [f'{bad[0]}{f" (and {len(bad) - 1} more lines)" if len(bad) > 1 else ""}; {what}'
         for bad, what in ((bad_events, 'left out: only times and speeds are read from it'),
                           (bad_rows, 'a law leaves this run out')) if bad]
  return out + [str(event.get('why')) for event in events if event['event'] == records.AROUND]


def failed_damaged(folder: os.PathLike) -> bool:
  """Whether the last process of a run failed because its checkpoints are damaged."""
  events = records.read_events(epath.Path(folder) / records.EVENTS)
  return bool(events) and events[-1]['event'] == 'failed' and bool(events[-1].get('damaged'))


def readable_run(folder: os.PathLike) -> dict:
  """The fields of a run.json; none where it is absent or damaged."""
  try:
    return records.read_run(folder) or {}
  except UserError:
    return {}


def measured_speeds(workdir: os.PathLike) -> list[tuple[float, float]]:
  """(FLOPs per example, FLOP/s) of each run in a sweep's folder that has trained; speeds are medians of a log."""
  out = []
  workdir = epath.Path(workdir)
  for path in sorted(workdir.glob(f'*/{records.RUN}')) if workdir.exists() else ():
    rows = records.read_events(path.parent / records.EVENTS)
    found = [row.get('images_per_s') for row in rows if row['event'] == 'train']
    speeds = sorted(speed for speed in found if isinstance(speed, (int, float)) and 0 < speed < math.inf)
    flops = readable_run(path.parent).get('flops_per_example_train')
    if speeds and flops and flops > 0:
      out.append((float(flops), speeds[len(speeds) // 2] * flops))
  return out


def write_plan(workdir: os.PathLike, name: str, plan: Plan) -> None:
  """Writes a plan into the sweep's folder, for `read_plans`."""
  durable.write(epath.Path(workdir) / PLANS / f'{name}.json', json.dumps(dataclasses.asdict(plan), indent=1) + '\n')


def offer_plan(workdir: os.PathLike, name: str, plan: Plan) -> str | None:
  """Writes a plan for those who look at a sweep that runs elsewhere; None, or why that fails from here."""
  faults = [f'no answer within {_PATIENCE_SECONDS} s']

  def write():
    try:
      write_plan(workdir, name, plan)
      faults.clear()
    except Exception as error:  # each store has errors of its own; the sweep does not depend on it
      faults[0] = f'{type(error).__name__}: {" ".join(str(error).split())[:100]}'

  writer = threading.Thread(target=write, daemon=True)  # without credentials, some clients try for minutes
  writer.start()
  writer.join(_PATIENCE_SECONDS)
  return faults[0] if faults else None


def read_plans(workdir: os.PathLike) -> tuple[list[Plan], list[str]]:
  """(the plans of the sweeps that were started in a folder, a message for each plan that is damaged).

  Raises:
    UserError: no sweep was started there, or all plans are damaged.
  """
  plans = epath.Path(workdir) / PLANS
  found = sorted(plans.glob('*.json')) if plans.exists() else []
  if not found:
    raise UserError(f'--workdir={workdir}: no sweep has been started in this folder')
  plans, faults = [], []
  for path in found:
    try:
      plans.append(_plan(path.read_bytes(), os.fspath(path)))
    except UserError as error:
      faults.append(f'{error}; left out. The command that started the sweep writes it again')
  if not plans:
    raise UserError('. '.join(faults))
  return plans, faults


def _plan(content: bytes, where: str) -> Plan:
  fields = records.parse(content, where)
  for name in ('runs', 'trunks'):
    if not isinstance(fields.get(name), list):
      raise UserError(f'{where}: {name}: expected a list; was the file damaged?')
  build = lambda cls, name: tuple(schema.cast(cls, item, f'{where}: {name}') for item in fields[name])
  try:
    runs, trunks = build(PlannedRun, 'runs'), build(PlannedTrunk, 'trunks')
  except TypeError as error:  # a field is missing
    raise UserError(f'{where}: {error}; was the file damaged?') from error
  speed, platform = fields.get('matmul_speed'), fields.get('platform')
  fine = runs and all(run.steps > 0 for run in runs) and all(trunk.branch_steps for trunk in trunks)
  if not fine or not isinstance(speed, (int, float)) or not isinstance(platform, str):
    raise UserError(f'{where}: expected runs of one step or more, a platform and a matmul_speed; was the file damaged?')
  return Plan(runs, trunks, (), platform, float(speed))
