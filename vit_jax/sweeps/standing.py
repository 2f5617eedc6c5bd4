"""How far each run of a sweep is, read from its folder: here, or in a bucket while a cluster trains it.

Nothing but the folder is asked. A run on another machine is alive if its events have been uploaded in the last minutes
(`survival.beacon`).
"""

import concurrent.futures
import dataclasses
import os
import time
from collections.abc import Sequence

from etils import epath

from vit_jax import goodput, records
from vit_jax.cost import prices, slices
from vit_jax.cost.hardware import CHIPS
from vit_jax.errors import UserError, nearest
from vit_jax.survival import lock, restarts, stop_file
from vit_jax.survival.beacon import REMOTE_SECONDS
from vit_jax.sweeps import folders, jobs
from vit_jax.sweeps.jobs import Job

_AT_ONCE = 16  # folders that are read at the same time: most of the time is spent waiting for a bucket
_SILENT_SECONDS = 4 * REMOTE_SECONDS


@dataclasses.dataclass(frozen=True)
class Standing:
  """The progress of a run.

  Attributes:
    status: 'finished', 'running', 'silent' (it was running, and there has been no sign of it for `silent_s`), 'failed',
      'stopped' (can be resumed), 'waiting', or 'damaged' (`folders.damage` says how).
    step: of the last row of its log.
    loss: of the last training row.
    val_loss: of the last validation row.
    restarts: how often a process began again.
    goodput: the share of the time so far that went into steps that were kept; None: not known.
    seconds: the time of all its processes so far, where a process is all hosts of a run.
    chips, generation: that it runs on; 0 and None unless they are TPUs.
    silent_s: seconds since its last sign of life; None: not known.
  """
  status: str
  step: int = 0
  val_loss: float | None = None
  loss: float | None = None
  restarts: int = 0
  goodput: float | None = None
  seconds: float = 0.0
  chips: int = 0
  generation: str | None = None
  silent_s: float | None = None

  @property
  def chip_hours(self) -> float:
    return self.chips * self.seconds / 3600

  def cost(self, price: float | None = None) -> float | None:
    """Dollars so far, at a price per chip-hour or else the list price; None where nothing is known."""
    return self.chip_hours * prices.of(self.generation, price)[0] if self.generation else None


@dataclasses.dataclass(frozen=True)
class Sweep:
  """The jobs of the sweeps in a folder, and what is wrong with their plans."""
  workdir: str
  jobs: list[Job]
  faults: list[str]


def read(workdir: str) -> Sweep:
  """The sweeps that were started or launched in a folder.

  Without plans (a cluster wrote the folder, and this machine could not), its run folders are taken as they are.

  Raises:
    UserError: there is neither a plan nor a run, or the folder cannot be read.
  """
  try:
    found = _begun(workdir) if not (epath.Path(workdir) / folders.PLANS).exists() else None
  except Exception as error:  # each store has errors of its own
    raise UserError(f'{workdir}: cannot be read: {type(error).__name__}: {error}') from error
  if found:
    return Sweep(workdir, found, [])
  plans, faults = folders.read_plans(workdir)
  return Sweep(workdir, [job for plan in plans for job in jobs.make(plan, workdir)], faults)


def _begun(workdir):
  """A job for each folder of a run or a trunk."""
  root = epath.Path(workdir)
  if not root.exists():
    return []
  found = [*sorted(root.glob(f'trunks/*/{records.RUN}')), *sorted(root.glob(f'*/{records.RUN}'))]
  return [as_it_is(path.parent) for path in found]


def as_it_is(folder: epath.Path) -> Job:
  """The job of a run or trunk folder of which no plan is known."""
  run = folders.readable_run(folder)
  name = f'trunk {folder.name}' if folder.parent.name == 'trunks' else folder.name
  return Job(name, os.fspath(folder), (), run.get('steps') or 0, 0, 0.0, 0, tuple(run.get('branch_steps') or ()))


def ask(sweep: Sweep, name: str, stop: bool) -> str:
  """Asks a run of a sweep to stop, or takes that back; returns a sentence.

  Args:
    sweep: the sweep.
    name: of the run as --status shows it, or of its folder.
    stop: whether to ask.

  Raises:
    UserError: there is no such run, or several.
  """
  names = {job.name: job for job in sweep.jobs} | {epath.Path(job.folder).name: job for job in sweep.jobs}
  matches = {id(names[n]): names[n] for n in names if n == name} or {
      id(names[n]): names[n] for n in names if n.startswith(name)}
  if len(matches) != 1:
    several = f': {len(matches)} runs begin so' if matches else f'{nearest(name, list(names))}'
    raise UserError(f'{name}: expected a run as --status names it{several}')
  (job,) = matches.values()
  if not stop:
    there = stop_file.take_back(job.folder)
    return f'{job.name} may run again: start it as before' if there else f'{job.name} was not asked to stop'
  if of(job.folder).status == 'finished':
    return f'{job.name} has finished'
  stop_file.ask(job.folder)
  return (f'{job.name} is asked to stop: it looks every {REMOTE_SECONDS:.0f} seconds or more often, saves, and ends '
          'with exit code 1, after which it is not restarted. --unstop takes it back')


def of_all(jobs: Sequence[Job]) -> list[Standing]:
  """The progress of runs, in their order."""
  with concurrent.futures.ThreadPoolExecutor(_AT_ONCE) as pool:
    return list(pool.map(lambda job: of(job.folder), jobs))


def of(folder: os.PathLike | str) -> Standing:
  """The progress of a run, read from its files."""
  folder = epath.Path(folder)
  rows = records.readable_rows(folder / records.METRICS, records.ROW)[0]
  events = records.read_events(folder / records.EVENTS)
  begun = sum(1 for event in events if event['event'] == restarts.BEGUN)
  spent = goodput.breakdown(events)
  total = sum(spent.values())
  chips, generation = _chips(folders.readable_run(folder).get('devices'))
  silent = _silent_seconds(folder, events)
  return Standing(_status(folder, events, silent), max((row['step'] for row in rows), default=0),
                  _last_loss(rows, 'val'), _last_loss(rows, 'train'), max(begun - 1, 0),
                  spent['step'] / total if total else None, total, chips, generation, silent)


def _last_loss(rows, split):
  losses = [row.get('loss') for row in rows if row['split'] == split]
  return losses[-1] if losses and isinstance(losses[-1], float) else None


def _status(folder, events, silent):
  if folders.damage(folder):
    return 'damaged'
  if folders.is_finished(folder) or folders.trained_steps(folder):
    return 'finished'
  if lock.is_held(folder):
    return 'running'
  last = events[-1]['event'] if events else None
  if last == 'failed':
    return 'failed'
  if last in (None, 'stopped') or '://' not in os.fspath(folder):
    return 'stopped' if events else 'waiting'
  return 'running' if silent is not None and silent < _SILENT_SECONDS else 'silent'


def _silent_seconds(folder, events):
  """Since the events were uploaded, or since the last of them on a disk, where each is written at once."""
  if not events:
    return None
  if '://' not in os.fspath(folder):
    last = events[-1].get('time')
    return time.time() - last if isinstance(last, (int, float)) else None
  return max(time.time() - (folder / records.EVENTS).stat().mtime, 0.0)


def _chips(devices):
  """(TPU chips, their generation) of the devices in run.json; (0, None) for others."""
  devices = devices if isinstance(devices, dict) else {}
  kind, count = devices.get('kind'), devices.get('count')
  generation = next((name for name, info in slices.GENERATIONS.items() if info.device_kind == kind), None)
  if generation is None or not isinstance(count, int):
    return 0, None
  return count // CHIPS[kind].devices, generation
