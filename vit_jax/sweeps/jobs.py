"""From a plan to jobs, one per process: which are left to do, what they wait for, and how long they take."""

import collections
import dataclasses
import heapq
import math
import os
from collections.abc import Sequence

import numpy as np
from etils import epath

from vit_jax import records
from vit_jax.sweeps import folders
from vit_jax.sweeps.sweep_plan import Plan

START_SECONDS = 8  # imports, compilation and the last evaluation of a small run
SMALL_STEP = 1e10  # FLOPs per step below which one process per core is faster than one process on all cores
# The share of a large matmul's speed that training reaches on CPU cores with one pinned process each, by FLOPs per
# example: models of 10 thousand, 100 thousand and a million parameters. It also depends on the batch and the shape.
_CPU_SHARE = ((1e6, 0.10), (1e7, 0.19), (1e8, 0.38))
_CHIP_SHARE = ((1.0, 0.35),)
MOST_PACKED = 8  # largest number of runs that one process trains together
_PACKED_EXAMPLE = 2e6  # training FLOPs per image up to which packing is faster on a CPU


@dataclasses.dataclass(frozen=True)
class Job:
  """One process to start.

  Attributes:
    name: a name for people.
    folder: the run folder.
    arguments: all arguments of vit_jax.main.
    steps: the step at which it ends.
    first_step: the step at which it begins; 0 except for branches and for trunks that are continued.
    flops: training FLOPs of the steps that it executes.
    flops_per_example: training FLOPs per example.
    saves: for a trunk, the steps of the checkpoints that branches wait for.
    trunk: for a branch, the folder of its trunk, from which it starts at `first_step`.
    program: equal for jobs that can be trained together; None: it is trained alone.
  """
  name: str
  folder: str
  arguments: tuple[str, ...]
  steps: int
  first_step: int
  flops: float
  flops_per_example: int
  saves: tuple[int, ...] = ()
  trunk: str | None = None
  program: str | None = None

  def finished(self) -> bool:
    """Whether nothing is left to do."""
    if self.saves:
      saved = folders.has_run(self.folder) and set(self.saves) <= set(records.saved_steps(self.folder))
      return saved or folders.trained_steps(self.folder) >= self.steps
    return folders.is_finished(self.folder)

  def ready(self) -> bool:
    """Whether it can start: a branch waits until its trunk has reached its first step, or has its own checkpoints.

    It does not wait for a trunk whose run.json is damaged: it then trains that part itself.
    """
    return (not self.trunk or bool(folders.damage(self.trunk))
            or (folders.has_run(self.trunk) and self.first_step in records.saved_steps(self.trunk))
            or folders.trained_steps(self.trunk) >= self.first_step or bool(records.saved_steps(self.folder)))


def make(plan: Plan, workdir: os.PathLike) -> list[Job]:
  """The jobs of a plan, including finished ones: trunks first, then the runs, each in the order of the sweep.

  A trunk that only one run would use gets no job, and the run trains from the start. The exception is a trunk that an
  earlier sweep has left in this folder: it is continued.
  """
  members = collections.Counter(run.trunk for run in plan.runs)
  there = {trunk.trunk_hash: folders.trunk_folder(workdir, trunk.trunk_hash) for trunk in plan.trunks}
  used = {key: os.fspath(folder) for key, folder in there.items() if members[key] > 1 or folder.exists()}
  trunks = [_trunk_job(trunk, used[trunk.trunk_hash]) for trunk in plan.trunks if trunk.trunk_hash in used]
  return trunks + [_run_job(run, folders.run_folder(workdir, run), used.get(run.trunk)) for run in plan.runs]


def _trunk_job(trunk, folder):
  first = min(folders.trained_steps(folder), trunk.steps)
  steps = ','.join(map(str, trunk.branch_steps))
  return Job(f'trunk {trunk.trunk_hash}', folder, (*trunk.arguments, f'--workdir={folder}', f'--branch_steps={steps}'),
             trunk.steps, first, trunk.flops * (trunk.steps - first) / trunk.steps, trunk.flops_per_example,
             saves=trunk.branch_steps, program=trunk.program)


def _run_job(run, folder, trunk):
  first = run.branch_step if trunk else 0
  arguments = (*run.arguments, f'--workdir={os.fspath(folder)}', *([f'--trunk={trunk}'] if trunk else []))
  return Job(folder.name, os.fspath(folder), arguments, run.steps, first, run.flops * (run.steps - first) / run.steps,
             run.flops_per_example, trunk=trunk, program=run.program)


def to_do(jobs: Sequence[Job]) -> list[Job]:
  """The jobs that are not finished, except damaged ones, and trunks that no unfinished run waits for."""
  left = [job for job in jobs if not job.finished() and not folders.damage(job.folder)]
  wanted = {job.trunk for job in left if not job.ready()}
  return [job for job in left if not job.saves or job.folder in wanted]


def default_processes(plan: Plan) -> int:
  """The default number of processes: one if there is an accelerator or the models are large, else one per core.

  A step of a small model does not use several cores well. On two cores, two pinned processes train 1.76 times as many
  images per second as one process with two threads at 10 to 100 thousand parameters, and 1.16 times at a million.
  """
  largest = max(run.flops / run.steps for run in plan.runs)
  return 1 if plan.platform != 'cpu' or largest > SMALL_STEP else min(len(cores()), len(plan.runs))


def cores() -> list[int]:
  """The cores that this process may use."""
  return sorted(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else list(range(os.cpu_count() or 1))


def seconds(jobs: Sequence[Job], plan: Plan, workdir: os.PathLike, processes: int) -> dict[str, float]:
  """{name: estimated seconds} of each job, at the speed of the runs in the folder, else at a rough guess."""
  points = sorted(folders.measured_speeds(workdir))
  if not points:
    share, parts = (_CPU_SHARE, processes) if plan.platform == 'cpu' else (_CHIP_SHARE, 1)
    points = [(flops, part * plan.matmul_speed / parts) for flops, part in share]
  sizes, speeds = np.log(np.array(points).T)
  return {job.name: START_SECONDS + job.flops / math.exp(np.interp(math.log(job.flops_per_example), sizes, speeds))
          for job in jobs}


def by_priority(jobs: Sequence[Job], seconds: dict[str, float]) -> list[Job]:
  """The jobs in the order in which they start, the longest first. A trunk counts with its longest branch."""
  longest = {}
  for job in jobs:
    if job.trunk:
      longest[job.trunk] = max(longest.get(job.trunk, 0), seconds[job.name])
  return sorted(jobs, key=lambda job: -(seconds[job.name] + (longest.get(job.folder, 0) if job.saves else 0)))


def packed(jobs: Sequence[Job], plan: Plan, processes: int) -> list[tuple[Job, ...]]:
  """The jobs in their order, grouped by the process that trains them. Jobs are grouped where that is faster.

  On an accelerator, a small step leaves most of the chip idle. On a CPU core only the smallest models gain, as the
  working set of several larger models exceeds the caches (experiments/speed). Groups are small enough that every
  process has work.
  """
  largest = _PACKED_EXAMPLE if plan.platform == 'cpu' else math.inf
  groups = collections.defaultdict(list)
  for job in jobs:
    small = job.flops / max(job.steps - job.first_step, 1) < SMALL_STEP and job.flops_per_example < largest
    saved = max(records.saved_steps(job.folder), default=None)
    together = job.program and small and (job.program, job.steps, job.first_step, job.saves, saved)
    groups[together or job.folder].append(job)
  out = {}
  for group in groups.values():
    size = min(MOST_PACKED, -(-len(group) // processes))
    out |= {group[i].folder: tuple(group[i:i + size]) for i in range(0, len(group), size)}
  return [out[job.folder] for job in jobs if job.folder in out]


def makespan(jobs: Sequence[Job], seconds: dict[str, float], processes: int) -> float:
  """The estimated time of all jobs in seconds, if they are started as `runner` starts them."""
  waiting, free = by_priority(jobs, seconds), [0.0] * processes
  ready = {job.name: 0.0 if job.ready() else math.inf for job in jobs}
  while waiting:
    now = heapq.heappop(free)
    job = next((job for job in waiting if ready[job.name] <= now), None)
    if job is None:  # idle until the next branch can begin
      heapq.heappush(free, min(ready[job.name] for job in waiting))
      continue
    waiting.remove(job)
    for branch in waiting:
      if job.saves and branch.trunk == job.folder:
        ready[branch.name] = min(ready[branch.name], now + seconds[job.name] * _part(job, branch.first_step))
    heapq.heappush(free, now + seconds[job.name])
  return max(free)


def _part(trunk, step):
  """The fraction of a trunk's job that is done when it reaches `step`."""
  return max(0.0, (step - trunk.first_step) / max(trunk.steps - trunk.first_step, 1))


def log_path(job: Job) -> epath.Path:
  """The file that receives a job's output."""
  return epath.Path(job.folder) / folders.LOG
