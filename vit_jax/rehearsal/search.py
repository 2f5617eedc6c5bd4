"""Search for the fastest mesh, rematerialisation policy and number of micro-batches that fit."""

import dataclasses
import time
from collections.abc import Callable, Iterator

from vit_jax.cost.gpus import Target
from vit_jax.cost.slices import Slice
from vit_jax.errors import UserError
from vit_jax.layers.stack import POLICIES
from vit_jax.rehearsal import compiler, roofline
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal import run_plan as plan_lib
from vit_jax.rehearsal.compiler import Compiled
from vit_jax.rehearsal.estimate import Memory
from vit_jax.rehearsal.job import Choice, Job
from vit_jax.rehearsal.run_plan import Plan

MOST_COMPILES = 6
SECONDS = 240.0
_MOST_TENSOR = 16  # splitting heads and columns over more chips costs more to gather than it saves
_DOUBT = 1.1  # factor by which an estimate of memory may be off before anything has been compiled
_WORTH = 0.95  # a choice is compiled only if its estimated floor is below this share of the best floor

@dataclasses.dataclass
class _Correction:
  """The ratio of compiled results to their estimates, so far."""
  memory: float = 1.0  # of activations and temporaries
  traffic: float = 1.0
  doubt: float = _DOUBT

  def learn(self, guess: Plan, result: Plan) -> None:
    self.doubt = 1.0
    if isinstance(result.outcome, Compiled):
      self.memory = _variable(result.memory) / _variable(guess.memory)
      self.traffic = result.work.hbm_bytes / guess.work.hbm_bytes
    else:  # refused: it needs more than estimated, and more than there is
      self.memory = max(1.1 * self.memory, (result.needs - _state(guess.memory)) / _variable(guess.memory))

  def needs(self, guess: Plan) -> float:
    return _state(guess.memory) + self.memory * _variable(guess.memory)

  def times(self, guess: Plan) -> roofline.Times:
    return roofline.times(guess.target.chip,
                          dataclasses.replace(guess.work, hbm_bytes=self.traffic * guess.work.hbm_bytes))

  def score(self, guess: Plan) -> float:
    """The floor plus a small part of the other two times, which decide between equal floors. Lower is better."""
    times = self.times(guess)
    return times.floor + 0.2 * (times.compute + times.hbm + times.interconnect - times.floor)


def search(job: Job, target: Slice, limit_bytes: float, progress: Callable[[str], None],
           seconds: float = SECONDS) -> list[Plan]:
  """Searches for the fastest choice that fits.

  All choices are ranked by an estimate. Then they are compiled one by one, the fastest that should fit first, and each
  result corrects the remaining estimates. The search ends when no remaining choice is estimated to be faster, or when
  the number of compiles or the time is used up.

  Args:
    job: the run.
    target: the slices.
    limit_bytes: the HBM per chip that may be used.
    progress: called with a line of text on each change.
    seconds: the time after which nothing more is compiled.

  Returns:
    The plans that were compiled, best first: those that fit by floor time, then the others by memory.
  """
  start, correction, results = time.monotonic(), _Correction(), []
  left = [plan_lib.estimated(job, target, choice, limit_bytes) for choice in choices(job, target)]
  progress(f'{len(left)} choices; at most {MOST_COMPILES} will be compiled')
  while left and len(results) < MOST_COMPILES:
    best = min((plan.times.floor for plan in results if plan.fits), default=float('inf'))
    guess = _next(left, limit_bytes, correction, best)
    if guess is None:
      break
    left.remove(guess)
    remaining = seconds - (time.monotonic() - start)
    label = f'compile {len(results) + 1}: {guess.choice}'
    try:
      result = plan_lib.compiled(job, target, guess.choice, limit_bytes, remaining,
                                 lambda elapsed, label=label: progress(f'{label}, {elapsed:.0f} s'))
    except compiler.OutOfTime:
      progress(f'{label}: stopped after {seconds:.0f} s')
      break
    progress(f'{label}: {verdict(result)}')
    correction.learn(guess, result)
    results.append(result)
  return sorted(results, key=lambda plan: (not plan.fits, plan.times.floor if plan.fits else plan.needs))


def verdict(plan: Plan) -> str:
  """A short description of a compiled plan."""
  if plan.fits:
    return f'fits, {plan.needs / 1e9:.1f} GB, floor {plan.times.floor:.3g} s'
  return f'does not fit: {plan.needs / 1e9:.1f} GB'


def choices(job: Job, target: Target) -> Iterator[Choice]:
  """Yields every choice that a run would accept on these slices.

  With batch norm, micro-batches change what is computed, so their number stays that of the config.
  """
  batch, devices = job.config.data.batch_size, target.devices
  fixed = job.config.system.microbatches if job.model.stats_shapes() else None
  for tensor in _divisors(min(devices, _MOST_TENSOR), devices):
    for fsdp in _divisors(devices // tensor, devices // tensor):
      sizes = (devices // tensor // fsdp, fsdp, tensor)
      try:
        job_lib.check(job, target, Choice(sizes, 'none', 1))
      except UserError:
        continue
      microbatches = fixed or 1
      while batch % (sizes[0] * sizes[1] * microbatches) == 0:
        for remat in POLICIES:
          yield Choice(sizes, remat, microbatches)
        if fixed:
          break
        microbatches *= 2


def nearest_fit(job: Job, target: Target, choice: Choice, limit_bytes: float,
                progress: Callable[[str], None], by_compiler: bool = True) -> Plan | None:
  """The plan of the choice that fits and differs least from `choice`; without a compiler, that is estimated to fit.

  Rematerialisation is changed first, then micro-batches, then the mesh. None if no choice is estimated to fit, or if
  two that were estimated to fit did not.
  """
  guesses = [plan_lib.estimated(job, target, other, limit_bytes) for other in choices(job, target)]
  distance = lambda other: (other.sizes != choice.sizes, other.microbatches != choice.microbatches,
                            other.remat != choice.remat)
  room = limit_bytes / _DOUBT
  for _ in range(2):
    likely = [guess for guess in guesses if guess.needs <= room]
    if not likely:
      return None
    guess = min(likely, key=lambda plan: (distance(plan.choice), plan.times.floor))
    if not by_compiler:
      return guess
    label = f'looking for a choice that fits: {target}, {guess.choice}'
    result = plan_lib.compiled(job, target, guess.choice, limit_bytes,
                               waiting=lambda elapsed, label=label: progress(f'{label}, {elapsed:.0f} s'))
    if result.fits:
      return result
    room = 0.7 * guess.needs
  return None


def _next(left: list[Plan], limit_bytes: float, correction: _Correction, best: float) -> Plan | None:
  """The best of those estimated to fit and to beat the best floor; the smallest while nothing has fitted; or None."""
  likely = [plan for plan in left if correction.needs(plan) <= limit_bytes * correction.doubt
            and correction.times(plan).floor < _WORTH * best]
  if likely:
    return min(likely, key=correction.score)
  return min(left, key=correction.needs) if best == float('inf') else None


def _divisors(most, number):
  return [n for n in range(1, most + 1) if number % n == 0]


def _state(memory: Memory) -> float:
  return memory.parameters + memory.optimizer


def _variable(memory: Memory) -> float:
  return memory.activations + memory.temporaries
