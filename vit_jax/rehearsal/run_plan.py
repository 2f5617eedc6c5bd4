"""A plan: how a run is executed on given slices or GPUs, what it needs there, and whether it fits."""

import dataclasses
from collections.abc import Callable

from vit_jax.cost.gpus import Target
from vit_jax.cost.slices import Slice
from vit_jax.parallel.rules import AXES
from vit_jax.rehearsal import compiler, estimate, roofline
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal.compiler import Compiled, Refused
from vit_jax.rehearsal.estimate import Memory, Work
from vit_jax.rehearsal.job import Choice, Job


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a run needs on given slices or GPUs.

  Attributes:
    job: the run.
    target: the slices or GPUs.
    choice: how it is executed.
    limit_bytes: the memory per chip that may be used.
    memory: memory of one chip, from the compiler if it compiled the step, else an estimate. How much of it is for
      activations is an estimate where layers are unrolled.
    work: work of one device, likewise. Its FLOPs always come from the traced program.
    outcome: the compiler's result; None: not compiled.
    before: plans of what the run would try first, and which do not fit.
  """
  job: Job
  target: Target
  choice: Choice
  limit_bytes: float
  memory: Memory
  work: Work
  outcome: Compiled | Refused | None
  before: tuple['Plan', ...] = ()

  @property
  def fits(self) -> bool | None:
    """Whether the step fits. Without a compiler it is None, as an estimate is not reliable enough, or False where the
    state alone is too large, whose size is exact."""
    if self.outcome is None:
      return False if self.memory.parameters + self.memory.optimizer > self.limit_bytes else None
    return isinstance(self.outcome, Compiled) and self.needs <= self.limit_bytes

  @property
  def should_fit(self) -> bool:
    """Whether it fits, or without a compiler, whether it is estimated to."""
    return self.needs <= self.limit_bytes if self.fits is None else self.fits

  @property
  def needs(self) -> float:
    """The peak use of HBM on a chip, in bytes."""
    if isinstance(self.outcome, Refused) and self.outcome.needs_bytes:
      return max(self.outcome.needs_bytes * self.target.chip.devices, self.memory.peak)
    return self.memory.peak

  @property
  def times(self) -> roofline.Times:
    return roofline.times(self.target.chip, self.work)

  @property
  def recomputed_share(self) -> float:
    return self.job.recomputed_share(self.choice.remat, self.choice.microbatches)

  @property
  def floor_mfu(self) -> float:
    """The model FLOPs utilisation of a step that takes its floor, which no run exceeds."""
    step = self.job.spent_per_image * self.job.config.data.batch_size
    return step / (self.times.floor * self.target.chips * self.target.chip.peak_flops)

  @property
  def flops(self) -> float | None:
    """The FLOPs of the whole run, without recomputation; None if its length is not known."""
    return self.job.steps and self.job.steps * self.job.config.data.batch_size * self.job.spent_per_image

  def chip_hours(self, mfu: float) -> float | None:
    """Chip-hours of the whole run at a model FLOPs utilisation `mfu`, or at that of the floor if it is lower.

    Utilisation does not count recomputed FLOPs. None if the length of the run is not known.
    """
    return self.flops and self.flops / (min(mfu, self.floor_mfu) * self.target.chip.peak_flops) / 3600

  def to_json(self) -> dict:
    """The figures of the plan. Those that come from the compiler are None if the step was not compiled or refused."""
    compiled = self.outcome if isinstance(self.outcome, Compiled) else None
    return {
        'fits': self.fits, 'estimated': self.outcome is None, 'chips': self.target.chips,
        'peak_hbm_gb': round(self.needs / 1e9, 3),
        'memory_gb': {name: round(size / 1e9, 3) for name, size in dataclasses.asdict(self.memory).items()},
        'params': self.job.params, 'flops_per_image': self.job.flops_per_image[1],
        'recomputed_share': round(self.recomputed_share, 4), 'mesh': dict(zip(AXES, self.choice.sizes)),
        'remat': self.choice.remat, 'microbatch': self.choice.microbatches, 'floor_s': self.times.floor,
        'limit': self.times.limit, 'collectives': compiled and compiled.collectives,
        'compile_s': compiled and round(compiled.compile_s, 1)}


def estimated(job: Job, target: Target, choice: Choice, limit_bytes: float) -> Plan:
  """A plan from estimates alone, without the compiler."""
  return Plan(job, target, choice, limit_bytes, estimate.memory(job, target, choice),
              estimate.work(job, target, choice), None)


def compiled(job: Job, target: Slice, choice: Choice, limit_bytes: float, seconds: float | None = None,
             waiting: Callable[[float], None] = lambda elapsed: None) -> Plan:
  """A plan from the compiled step. For `seconds`, `waiting` and the errors raised see `compiler.compile_step`."""
  plan = estimated(job, target, choice, limit_bytes)
  outcome = compiler.compile_step(job, target, choice, seconds, waiting)
  if isinstance(outcome, Refused):
    return dataclasses.replace(plan, outcome=outcome)
  devices, memory = target.chip.devices, plan.memory
  known = memory.parameters + memory.optimizer
  # Of unrolled layers the program does not tell what it keeps for the backward pass: the estimate says how much it is.
  kept = min(devices * outcome.activation_bytes or memory.activations, devices * outcome.peak_bytes - known)
  return dataclasses.replace(
      plan, outcome=outcome,
      memory=Memory(memory.parameters, memory.optimizer, kept, devices * outcome.peak_bytes - known - kept),
      work=Work(plan.work.flops, outcome.hbm_bytes, outcome.sent_bytes['within'], outcome.sent_bytes['between']))


def first_that_fits(job: Job, target: Target, make: Callable[[Choice], Plan]) -> Plan:
  """The plan of what a run does as it is configured: of what it tries in turn, the first that fits.

  Args:
    job: the run.
    target: the slices or GPUs.
    make: makes a plan of a choice, as `compiled` or `estimated` does.

  Returns:
    The plan, with those before it; if none fits, the one that needs least.
  """
  tried = []
  for choice in job_lib.choices_on(job, target):
    plan = make(choice)
    if plan.should_fit:
      return dataclasses.replace(plan, before=tuple(tried))
    tried.append(plan)
  least = min(tried, key=lambda plan: plan.needs)
  return dataclasses.replace(least, before=tuple(plan for plan in tried if plan is not least))
