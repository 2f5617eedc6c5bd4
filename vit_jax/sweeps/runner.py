"""Runs jobs on this machine, N processes at a time, each on its share of the cores.

A process trains one job, or several together. Jobs that such a group does not finish are then run alone.

If a job fails, it is reported and the others continue. A job that was killed or pre-empted is restarted. Signals are
passed on to the jobs, which leave their runs resumable.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from vit_jax import exits, records
from vit_jax.survival import lock
from vit_jax.sweeps import folders
from vit_jax.sweeps.display import Display
from vit_jax.sweeps.jobs import Job, cores, log_path

_POLL_SECONDS, _BUSY_SECONDS = 0.5, 10


@dataclasses.dataclass
class _Attempt:
  """A job over all its restarts; or several jobs that one process trains together, without restarts."""
  jobs: tuple[Job, ...]
  restarts: int = 0  # since the newest checkpoint
  newest: int = -1  # the step of that checkpoint
  not_before: float = 0.0
  process: subprocess.Popen | None = None
  share: int = 0  # index into the shares of the cores
  log_start: int = 0

  @property
  def job(self) -> Job:
    return self.jobs[0]


class Runner:
  """Runs jobs, `processes` at a time, in the order given."""

  def __init__(self, jobs: Sequence[tuple[Job, ...]], processes: int, display: Display,
               command: Callable[[tuple[Job, ...], Sequence[int]], list[str]] | None = None,
               watch: Callable[[], None] = lambda: None):
    """Prepares to run jobs.

    Args:
      jobs: the jobs of each process.
      processes: how many processes run at a time.
      display: shows the progress.
      command: (jobs, cores) -> the command line of a process; default: `child_command`.
      watch: called often while jobs run.
    """
    self._command, self._watch = command or child_command, watch
    self._waiting = [_Attempt(together) for together in jobs]
    self._running: list[_Attempt] = []
    self._shares = _shares(cores(), processes)
    self._display = display
    self._failed_trunks: set[str] = set()
    self._damaged_trunks: set[str] = set()  # those whose branches do without
    self._signals: list[int] = []
    self.failed: list[Job] = []

  def run(self) -> int:
    """Runs all jobs and returns the exit code: 0; 1 if some failed; 130 or 42 after a SIGINT or SIGTERM."""
    before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
      while self._running or (self._waiting and not self._signals):
        self._reap()
        if not self._signals:
          self._start_ready()
        self._display.poll([job for attempt in self._running for job in attempt.jobs])
        self._watch()
        time.sleep(_POLL_SECONDS)
    finally:
      for attempt in self._running:  # not empty only after an error of this process: leave no process behind
        _kill(attempt.process)
      for number, handler in before.items():
        signal.signal(number, handler)
    if self._signals:
      return exits.INTERRUPTED if self._signals[0] == signal.SIGINT else exits.PREEMPTED
    return 1 if self.failed else 0

  def _stop(self, number, frame):
    self._signals.append(number)
    for attempt in self._running:
      if len(self._signals) > 1:
        _kill(attempt.process)
      else:
        attempt.process.send_signal(number)

  def _start_ready(self):
    for attempt in list(self._waiting):
      if len(self._running) == len(self._shares):
        return
      if attempt.not_before > time.monotonic():
        continue
      if all(job.finished() for job in attempt.jobs):  # by another sweep
        self._end(attempt, 'finished by another sweep')
      elif all(job.ready() or job.trunk in self._damaged_trunks for job in attempt.jobs):
        self._start(attempt)
      elif self._failed_trunks & {job.trunk for job in attempt.jobs}:
        self._apart(attempt) if len(attempt.jobs) > 1 else self._fail(attempt, 'its trunk failed')

  def _start(self, attempt):
    job, log = attempt.job, log_path(attempt.job)
    log.parent.mkdir(parents=True, exist_ok=True)
    used = {other.share for other in self._running}
    attempt.share = next(i for i in range(len(self._shares)) if i not in used)
    attempt.newest = max(records.saved_steps(job.folder), default=-1)
    command = self._command(attempt.jobs, self._shares[attempt.share])
    with open(log, 'ab') as file:
      attempt.log_start = file.tell()
      # In a session of its own, so that a terminal's Ctrl-C reaches only the sweep, which passes it on once.
      # Unbuffered, so that the end of its log is what it said last, which is reported if it fails.
      attempt.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                                         start_new_session=True, env=os.environ | {'PYTHONUNBUFFERED': '1'})
    self._waiting.remove(attempt)
    self._running.append(attempt)
    for job in attempt.jobs:
      self._display.started(job)

  def _reap(self):
    for attempt in list(self._running):
      code = attempt.process.poll()
      if code is None:
        continue
      self._running.remove(attempt)
      self._waiting.append(attempt)  # `_end` and `_fail` remove it again
      if all(job.finished() for job in attempt.jobs):
        self._end(attempt)
      elif code == lock.BUSY:
        attempt.not_before = time.monotonic() + _BUSY_SECONDS
        self._display.note(f'{attempt.job.name}: another process is training it; waiting')
      elif self._signals:
        pass
      elif len(attempt.jobs) > 1:
        self._apart(attempt)
      elif exits.retried(code):
        self._again(attempt, code)
      else:
        self._fail(attempt, f'exit code {code}')

  def _apart(self, attempt):
    """Queues unfinished jobs of a group to run alone, so that one cannot make the others fail."""
    where = self._waiting.index(attempt)
    self._waiting[where:where + 1] = [_Attempt((job,)) for job in attempt.jobs if not job.finished()]
    for job in attempt.jobs:
      if job.finished():
        self._display.finished(job)

  def _again(self, attempt, code):
    """Puts a job that was killed or pre-empted first in the queue; fails it if restarts make no progress."""
    newest = max(records.saved_steps(attempt.job.folder), default=-1)
    attempt.restarts = attempt.restarts + 1 if newest <= attempt.newest else 1
    if attempt.restarts > exits.MAX_RESTARTS:
      self._fail(attempt, f'exit code {code}, {exits.MAX_RESTARTS} restarts without a newer checkpoint')
      return
    self._display.note(f'{attempt.job.name}: exit code {code}, restarted')
    self._waiting.remove(attempt)
    self._waiting.insert(0, attempt)

  def _end(self, attempt, why=''):
    self._waiting.remove(attempt)
    for job in attempt.jobs:
      self._display.finished(job, why)

  def _fail(self, attempt, why):
    """Reports a failed job with the end of its output, and records the failure in its events."""
    self._waiting.remove(attempt)
    self.failed.append(attempt.job)
    if attempt.job.saves:
      damaged = folders.failed_damaged(attempt.job.folder)
      (self._damaged_trunks if damaged else self._failed_trunks).add(attempt.job.folder)
    said = _last_lines(attempt) if attempt.process else []
    events = records.Events(f'{attempt.job.folder}/{records.EVENTS}')
    events.append({'event': 'failed', 'why': why, 'said': said[-1] if said else ''})
    events.close()
    self._display.failed(attempt.job, why, said)


def child_command(jobs: tuple[Job, ...], share: Sequence[int]) -> list[str]:
  """The command line of a process that runs one job, or several together, on its share of the cores."""
  words = [str(os.getpid()), ','.join(map(str, share))]
  if len(jobs) > 1:
    return [sys.executable, '-m', 'vit_jax.sweeps.pack', *words, json.dumps([dataclasses.asdict(job) for job in jobs])]
  return [sys.executable, '-m', 'vit_jax.sweeps.child', *words, jobs[0].folder, *jobs[0].arguments]


def _shares(available, processes):
  """The cores of each process: equal shares, or one core each in turn if there are more processes than cores."""
  if processes >= len(available):
    return [available[i % len(available):][:1] for i in range(processes)]
  bounds = [i * len(available) // processes for i in range(processes + 1)]
  return [available[a:b] for a, b in zip(bounds, bounds[1:])]


def _kill(process):
  try:
    os.killpg(process.pid, signal.SIGKILL)
  except ProcessLookupError:
    pass


def _last_lines(attempt, count=5):
  """The error message of the last attempt if it printed one, else the last lines of its output."""
  content = log_path(attempt.job).read_bytes()[attempt.log_start:]
  lines = [line for line in content.decode(errors='replace').splitlines() if line.strip()][-count:]
  return next((lines[i:] for i, line in enumerate(lines) if line.startswith('error: ')), lines)
