"""Many runs on the same slices: each planned, programs that are alike compiled once, and their sum."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from vit_jax.cost.slices import Slice
from vit_jax.errors import UserError
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal.job import Job
from vit_jax.rehearsal.run_plan import Plan
from vit_jax.training.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Total:
  """The plans of a sweep, by the runs' names."""
  plans: tuple[tuple[str, Plan], ...]
  flops_alone: float  # if no run shared anything
  flops: float  # with trunks trained once
  target: Slice
  mfu: float = 0.4
  price: float | None = None  # dollars a chip-hour

  @property
  def fits(self) -> bool | None:
    """Whether all do; None where that is not known."""
    verdicts = {plan.fits for _, plan in self.plans}
    return False if False in verdicts else None if None in verdicts else True

  @property
  def too_large(self) -> list[tuple[str, Plan]]:
    """Those that do not fit, or should not as far as estimates go; the largest first."""
    over = [(name, plan) for name, plan in self.plans if plan.fits is False or plan.needs > plan.limit_bytes]
    return sorted(over, key=lambda item: -item[1].needs)

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


def open_jobs(names: Sequence[str], configs: Sequence[RunConfig]) -> list[Job]:
  """The runs of a sweep, to be planned.

  Raises:
    UserError: a run that is not right, or whose length is in epochs of a data set that is not known.
  """
  jobs = []
  for name, config in zip(names, configs, strict=True):
    try:
      job = job_lib.open_job(config)
    except UserError as error:
      raise UserError(f'{error}, in the run {name}') from error
    if job.steps is None:
      raise UserError(f'--sweep: the length of {name} is in epochs of a data set whose size is not known; set '
                      'data.unique_examples, or give the length in steps')
    jobs.append(job)
  return jobs


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
          config.loss, config.distill, rates, config.system)
