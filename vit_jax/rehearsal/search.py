"""Which mesh, how much recomputation, how many micro-batches: the fastest that fits."""

import dataclasses
import time
import typing
from collections.abc import Callable, Iterator

from vit_jax.cost.slices import Slice
from vit_jax.errors import UserError
from vit_jax.layers.stack import Execution
from vit_jax.rehearsal import compiler, roofline
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal import run_plan as plan_lib
from vit_jax.rehearsal.compiler import Compiled
from vit_jax.rehearsal.estimate import Memory
from vit_jax.rehearsal.job import Choice, Job
from vit_jax.rehearsal.run_plan import Plan

MOST_COMPILES = 6
SECONDS = 240.0
_MOST_TENSOR = 16  # heads and columns over more chips cost more to gather than they save
_DOUBT = 1.1  # before anything is compiled, an estimate of memory may be off by this
_WORTH = 0.95  # of the best floor: what does not promise to be below is not worth a compile

POLICIES = typing.get_args(typing.get_type_hints(Execution)['remat'])


@dataclasses.dataclass
class _Correction:
  """How far the compiled programs lay from their estimates, so far."""
  memory: float = 1.0  # of activations and temporaries
  traffic: float = 1.0
  doubt: float = _DOUBT

  def learn(self, guess: Plan, result: Plan) -> None:
    self.doubt = 1.0
    if isinstance(result.outcome, Compiled):
      self.memory = _variable(result.memory) / _variable(guess.memory)
      self.traffic = result.work.hbm_bytes / guess.work.hbm_bytes
    else:  # it needs more than was thought, and more than there is
      self.memory = max(1.1 * self.memory, (result.needs - _state(guess.memory)) / _variable(guess.memory))

  def needs(self, guess: Plan) -> float:
    return _state(guess.memory) + self.memory * _variable(guess.memory)

  def times(self, guess: Plan) -> roofline.Times:
    return roofline.times(guess.target.chip,
                          dataclasses.replace(guess.work, hbm_bytes=self.traffic * guess.work.hbm_bytes))

  def promise(self, guess: Plan) -> float:
    """The floor, and a little of the two lesser times: of equal floors the one with less work beside it is better."""
    times = self.times(guess)
    return times.floor + 0.2 * (times.compute + times.hbm + times.interconnect - times.floor)


def search(job: Job, target: Slice, limit_bytes: float, progress: Callable[[str], None],
           seconds: float = SECONDS) -> list[Plan]:
  """The choices that were compiled, best first: those that fit by their floor time, then the others by their need.

  All choices are ranked by an estimate. Then they are compiled, the fastest that should fit first, and each result
  corrects the estimates of the rest, until nothing that is left promises to be faster, or compiles or time run out.
  """
  start, correction, results = time.monotonic(), _Correction(), []
  left = [plan_lib.estimated(job, target, choice, limit_bytes) for choice in choices(job, target)]
  progress(f'{len(left)} ways to carry it out, at most {MOST_COMPILES} are compiled')
  while left and len(results) < MOST_COMPILES:
    best = min((plan.times.floor for plan in results if plan.fits), default=float('inf'))
    guess = _next(left, limit_bytes, correction, best)
    if guess is None:
      break
    left.remove(guess)
    remaining = seconds - (time.monotonic() - start)
    said = f'compile {len(results) + 1}: {guess.choice}'
    try:
      result = plan_lib.compiled(job, target, guess.choice, limit_bytes, remaining,
                                 lambda elapsed, said=said: progress(f'{said}, {elapsed:.0f} s'))
    except compiler.OutOfTime:
      progress(f'{said}: stopped, {seconds:.0f} s are over')
      break
    progress(f'{said}: {verdict(result)}')
    correction.learn(guess, result)
    results.append(result)
  return sorted(results, key=lambda plan: (not plan.fits, plan.times.floor if plan.fits else plan.needs))


def verdict(plan: Plan) -> str:
  """A compiled plan in a few words."""
  if plan.fits:
    return f'fits, {plan.needs / 1e9:.1f} GB, floor {plan.times.floor:.3g} s'
  return f'does not fit: {plan.needs / 1e9:.1f} GB'


def choices(job: Job, target: Slice) -> Iterator[Choice]:
  """Every choice that a run would accept on these slices.

  With batch norm, micro-batches change what is computed: they stay as the config has them.
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


def nearest_fit(job: Job, target: Slice, choice: Choice, limit_bytes: float,
                progress: Callable[[str], None]) -> Plan | None:
  """The choice that differs least and fits, compiled: recomputation is changed first, then micro-batches, then mesh.

  None where nothing should fit, or where the compiler refused two that should have.
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
    said = f'looking for one that fits: {target}, {guess.choice}'
    result = plan_lib.compiled(job, target, guess.choice, limit_bytes,
                               waiting=lambda elapsed, said=said: progress(f'{said}, {elapsed:.0f} s'))
    if result.fits:
      return result
    room = 0.7 * guess.needs
  return None


def _next(left: list[Plan], limit_bytes: float, correction: _Correction, best: float) -> Plan | None:
  """The most promising of those that should fit and beat the best floor; while nothing fits, at least the smallest."""
  likely = [plan for plan in left if correction.needs(plan) <= limit_bytes * correction.doubt
            and correction.times(plan).floor < _WORTH * best]
  if likely:
    return min(likely, key=correction.promise)
  return min(left, key=correction.needs) if best == float('inf') else None


def _divisors(most, number):
  return [n for n in range(1, most + 1) if number % n == 0]


def _state(memory: Memory) -> float:
  return memory.parameters + memory.optimizer


def _variable(memory: Memory) -> float:
  return memory.activations + memory.temporaries
