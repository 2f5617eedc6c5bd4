"""Many runs on the same slices: each planned, programs that are alike compiled once, and their sum."""

import dataclasses
from collections.abc import Callable, Iterable

from vit_jax.cost.slices import Slice
from vit_jax.rehearsal.job import Job
from vit_jax.rehearsal.plan import Plan


@dataclasses.dataclass(frozen=True)
class Total:
  """The plans of a sweep, by the runs' names."""
  plans: tuple[tuple[str, Plan], ...]
  flops_alone: float  # if no run shared anything
  flops: float  # with trunks trained once
  target: Slice
  mfu: float
  price: float | None  # dollars a chip-hour

  @property
  def fits(self) -> bool | None:
    """Whether all do; None where that is not known."""
    verdicts = {plan.fits for _, plan in self.plans}
    return False if False in verdicts else None if None in verdicts else True

  def hours(self, flops: float) -> float:
    """Chip-hours."""
    return flops / (self.mfu * self.target.chip.peak_flops) / 3600

  def to_json(self) -> dict:
    """Each run as `Plan.to_json` gives it, with its name and chip-hours, and the sum."""
    hours = self.hours(self.flops)
    return {'fits': self.fits, 'chips': self.target.chips, 'chip_hours': hours,
            'chip_hours_alone': self.hours(self.flops_alone), 'cost': self.price and hours * self.price,
            'runs': [{'name': name, 'steps': plan.job.steps, 'chip_hours': plan.chip_hours(self.mfu), **plan.to_json()}
                     for name, plan in self.plans]}


def plan_each(jobs: Iterable[Job], make: Callable[[Job], Plan]) -> list[Plan]:
  """A plan of each run; `make` is called once for runs whose compiled steps are the same but for constants."""
  jobs, made = list(jobs), {}
  for job in jobs:
    if _program(job) not in made:
      made[_program(job)] = make(job)
  return [dataclasses.replace(made[_program(job)], job=job) for job in jobs]


def _program(job: Job):
  """What a step's program depends on: not on seeds, rates and lengths."""
  config = job.config
  rates = dataclasses.replace(config.optimizer, learning_rate=0.0, weight_decay=0.0)
  return (config.family, config.model, job.image_shape, job.num_classes, config.data.batch_size, config.data.augment,
          config.loss, rates, config.system)
