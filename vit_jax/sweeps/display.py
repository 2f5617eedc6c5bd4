"""Terminal output of a sweep: the plan, the progress of and within its runs, and their status."""

import collections
import os
import sys
import time
from collections.abc import Mapping, Sequence

from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from vit_jax.console import Console
from vit_jax.cost import prices
from vit_jax.cost.slices import Slice
from vit_jax.goodput import duration
from vit_jax.launch.task import Task
from vit_jax.sweeps import folders, standing
from vit_jax.sweeps.jobs import MOST_PACKED, Job, log_path
from vit_jax.sweeps.sweep_plan import Plan, PlannedRun

_PLAIN_WIDTH = 160  # width of tables that are written to a file
_LINE_SECONDS = 60  # seconds between progress lines where there is no terminal
_STATUSES = ('finished', 'running', 'silent', 'stopped', 'waiting', 'failed', 'damaged')


class Display:
  """Shows progress as bars on a terminal and as lines elsewhere."""

  def __init__(self, console: Console | None = None):
    self.console = console or Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    self._bars, self._tasks, self._polled = None, {}, 0.0
    self._done = self._total = 0

  def note(self, text: str) -> None:
    """Prints a line above the bars."""
    self.console.print(text, markup=False, soft_wrap=True)

  def plan(self, plan: Plan, jobs: Sequence[Job], seconds: dict[str, float]) -> None:
    """Prints a row for each job; `jobs` are all jobs of the plan, `seconds` their estimated times."""
    table = _table('run', 'params', 'examples', 'steps', 'FLOPs', 'time', 'trunk')
    for job in jobs[:-len(plan.runs)]:
      table.add_row(job.name, '', '', f'{job.steps:,}', f'{job.flops:.2e}', _time(job, seconds), '', style='dim')
    for run, job in zip(plan.runs, jobs[-len(plan.runs):], strict=True):
      trunk = f'{run.trunk} at {run.branch_step:,}' if job.trunk else ''
      table.add_row(run.name, f'{run.params:,}', f'{run.examples:,}', f'{run.steps:,}', f'{run.flops:.2e}',
                    _time(job, seconds), trunk)
    self.console.print(table)
    for line in plan.notes:
      self.note(f'note: {line}')

  def totals(self, plan: Plan, jobs: Sequence[Job], left: Sequence[Sequence[Job]], makespan: float, processes: int,
             damaged: bool = False) -> None:
    """Prints below the plan what it costs, what is left to do (`left`, by process), and what sharing saves.

    `damaged` says that some jobs are left out, which `left_out` names.
    """
    together, left = sum(len(jobs) for jobs in left if len(jobs) > 1), [job for jobs in left for job in jobs]
    self.note(f'\n{len(plan.runs)} runs, {plan.flops_alone:.2e} FLOPs{saving(plan)}')
    runs = [job for job in left if not job.saves]
    if left:
      self.note(f'{len(runs)} to do: {sum(job.flops for job in left):.2e} FLOPs, about {duration(makespan)} with '
                f'{processes} process{"es" if processes > 1 else ""} (--jobs={processes})')
      if together:
        self.note(f'{together} of them are trained together, up to {MOST_PACKED} in one program')
    else:
      self.note('all others are finished' if damaged else 'all runs are finished')
    finished = [job for job in jobs if job.finished()]
    if other := sum(folders.by_other_code(job.folder) for job in finished):
      self.note(f'note: {other} of {len(finished)} finished runs are by other code than today\'s and are not run '
                'again; give another --workdir, or a tag (a config key) in the sweep')

  def tasks(self, plan: Plan, tasks: Mapping[Task, Sequence[PlannedRun]], target: Slice) -> None:
    """Prints a row for each run with the file that starts it, and the total cost; `tasks` maps tasks to their runs."""
    table = _table('run', 'params', 'examples', 'steps', 'FLOPs', 'file')
    for task, runs in tasks.items():
      for run in runs:
        table.add_row(run.name, f'{run.params:,}', f'{run.examples:,}', f'{run.steps:,}', f'{run.flops:.2e}',
                      f'{task.label}.yaml')
    self.console.print(table)
    for line in plan.notes:
      self.note(f'note: {line}')
    hosts = target.hosts * target.count
    self.note(f'\n{len(plan.runs)} runs in {len(tasks)} files, {plan.flops_alone:.2e} FLOPs{saving(plan)}\n'
              f'each file is for {target}, {hosts} host{"s" if hosts > 1 else ""}')
    if len(tasks) < len(plan.runs):
      self.note('runs in the same file share a trunk, which is trained first on the same slice')
    for recipe in sorted({run.arguments[0].partition('=')[2] for run in plan.runs}):
      if os.path.isabs(recipe):
        self.note(f'note: {recipe} must be there under the same path on the cluster')

  def start(self, total: int) -> None:
    """Begins progress over `total` jobs."""
    self._total, self._polled = total, time.monotonic()
    if self.console.is_terminal:
      columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.completed:.0f}/{task.total:.0f}'),
                 TextColumn('{task.fields[said]}'))
      self._bars = Progress(*columns, console=self.console, transient=True)
      self._tasks[''] = self._bars.add_task('all jobs', total=total, said='')
      self._bars.start()

  def started(self, job: Job) -> None:
    """A job's process has been started."""
    if self._bars:
      if job.name in self._tasks:  # it now continues alone, without the jobs that it was trained with
        self._bars.remove_task(self._tasks[job.name])
      self._tasks[job.name] = self._bars.add_task(job.name, total=job.steps, completed=job.first_step, said='starting')
    else:
      self.note(f'started   {job.name}')

  def poll(self, running: Sequence[Job]) -> None:
    """Shows how far the running jobs are; called often."""
    now = time.monotonic()
    if now - self._polled < (1 if self._bars else _LINE_SECONDS):
      return
    self._polled = now
    for job in running:
      there = standing.of(job.folder)
      loss = '' if there.val_loss is None else f'val loss {there.val_loss:.4f}'
      if self._bars:
        step = max(there.step, job.first_step)
        self._bars.update(self._tasks[job.name], completed=step, said='steps ' + loss)
      else:
        self.note(f'running   {job.name}, step {there.step:,}/{job.steps:,} {loss}')

  def finished(self, job: Job, why: str = '') -> None:
    """A job has finished."""
    self._ended(job)
    loss = standing.of(job.folder).val_loss
    words = ', '.join(filter(None, ('' if loss is None else f'val loss {loss:.4f}', why)))
    self.note(f'finished  {job.name}{": " if words else ""}{words} ({self._done} of {self._total})')

  def failed(self, job: Job, why: str, said: Sequence[str]) -> None:
    """A job has failed and will not be restarted; `said` is the end of its output."""
    self._ended(job)
    self.note('\n'.join([f'failed    {job.name}: {why} ({self._done} of {self._total})',
                         *(f'          {line}' for line in said), f'          log: {log_path(job)}']))

  def stop(self) -> None:
    """Removes the bars."""
    if self._bars:
      self._bars.stop()
      self._bars = None

  def status(self, jobs: Sequence[Job], price: float | None = None) -> None:
    """Prints a row with the status of each job, and what all have cost at `price` dollars per chip-hour."""
    table = _table('run', 'status', 'step', 'of', 'loss', 'val loss', 'restarts', 'goodput', 'chip-hours')
    found, counts = standing.of_all(jobs), collections.Counter()
    for job, there in zip(jobs, found, strict=True):
      status = 'finished' if job.finished() and there.status != 'damaged' else there.status
      counts[status] += 1
      silence = f' for {duration(there.silent_s)}' if status == 'silent' and there.silent_s else ''
      table.add_row(job.name, f'{status}{silence}', f'{there.step:,}', f'{job.steps:,}', _loss(there.loss),
                    _loss(there.val_loss), f'{there.restarts}',
                    '' if there.goodput is None else f'{there.goodput:.0%}',
                    f'{there.chip_hours:,.1f}' if there.chips else '')
    self.console.print(table)
    self.note(', '.join(f'{counts[status]} {status}' for status in _STATUSES if counts[status]))
    self._cost_so_far(found, price)
    self.left_out(jobs)

  def _cost_so_far(self, found, price):
    if not (priced := [there for there in found if there.generation]):
      return
    generations = sorted({there.generation for there in priced})
    each = ', '.join(f'{name}: ${dollars:.2f} per chip-hour, {source}' for name in generations
                     for dollars, source in [prices.of(name, price)])
    self.note(f'{sum(there.chip_hours for there in priced):,.1f} chip-hours so far, about '
              f'${sum(there.cost(price) for there in priced):,.2f} ({each}); the boot of slices is not counted')

  def left_out(self, jobs: Sequence[Job]) -> bool:
    """Names damaged jobs and what to do, then what the others went round; returns whether a job is left out."""
    damaged = {job.name: why for job in jobs if (why := folders.damage(job.folder))}
    for name, why in damaged.items():
      self.note(f'left out    {name}: {why}')
    for job in jobs:
      for remark in folders.remarks(job.folder):
        self.note(f'note: {job.name}: {remark}')
    return bool(damaged)

  def _ended(self, job):
    self._done += 1
    if self._bars:
      if job.name in self._tasks:
        self._bars.remove_task(self._tasks.pop(job.name))
      self._bars.update(self._tasks[''], completed=self._done)


def saving(plan: Plan) -> str:
  """The text `; 3.1e+13 with shared trunks, 0.62x`; empty if no trunk is shared."""
  return f'; {plan.flops:.2e} with shared trunks, {part:.2f}x' if (part := plan.flops / plan.flops_alone) < 1 else ''


def _loss(value):
  return '' if value is None else f'{value:.4f}'


def _time(job, seconds):
  if folders.damage(job.folder):
    return 'damaged'
  if not job.finished():
    return duration(seconds[job.name])
  return 'finished (other code)' if folders.by_other_code(job.folder) else 'finished'


def _table(first, *others):
  table = Table(box=None, padding=(0, 2, 0, 0), header_style='bold')
  table.add_column(first, overflow='fold')
  for name in others:
    table.add_column(name, justify='left' if name in ('status', 'trunk', 'file') else 'right', no_wrap=True)
  return table
