"""The plan of a sweep on given slices or GPUs: equal programs are planned once, and all costs are summed."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from vit_jax.cost.gpus import Target
from vit_jax.errors import UserError
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal.job import Job
from vit_jax.rehearsal.run_plan import Plan
from vit_jax.training.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Total:
  """The plans of a sweep's runs, and their sum.

  Attributes:
    plans: (name, plan) of each run.
    flops_alone: FLOPs of all runs if no run shared a trunk.
    flops: FLOPs of all runs with each trunk trained once.
    target: the slices or GPUs.
    mfu: model FLOPs utilisation, from 0 to 1, of runs whose floor allows it.
    price: dollars per chip-hour.
  """
  plans: tuple[tuple[str, Plan], ...]
  flops_alone: float
  flops: float
  target: Target
  mfu: float = 0.4
  price: float | None = None

  @property
  def fits(self) -> bool | None:
    """Whether all runs fit; None if that is not known."""
    verdicts = {plan.fits for _, plan in self.plans}
    return False if False in verdicts else None if None in verdicts else True

  @property
  def too_large(self) -> list[tuple[str, Plan]]:
    """The runs that do not fit, or are estimated not to; the largest first."""
    over = [(name, plan) for name, plan in self.plans if not plan.should_fit]
    return sorted(over, key=lambda item: -item[1].needs)

  def hours(self, flops: float) -> float:
    """The chip-hours that `flops` take, at the mean speed of the runs; none is planned to be faster than its floor."""
    return flops * sum(plan.chip_hours(self.mfu) for _, plan in self.plans) / sum(plan.flops for _, plan in self.plans)

  def to_json(self) -> dict:
    """The sums, and for each run its name, steps, chip-hours and the entries of `Plan.to_json`."""
    hours = self.hours(self.flops)
    return {'fits': self.fits, 'chips': self.target.chips, 'chip_hours': hours,
            'chip_hours_alone': self.hours(self.flops_alone), 'cost': self.price and hours * self.price,
            'runs': [{'name': name, 'steps': plan.job.steps, 'chip_hours': plan.chip_hours(self.mfu), **plan.to_json()}
                     for name, plan in self.plans]}


def open_jobs(names: Sequence[str], configs: Sequence[RunConfig]) -> list[Job]:
  """Opens the runs of a sweep for planning.

  Raises:
    UserError: a run is invalid, or its length is in epochs of a data set of unknown size.
  """
  jobs = []
  for name, config in zip(names, configs, strict=True):
    try:
      job = job_lib.open_job(config)
    except UserError as error:
      raise UserError(f'{error} (in the run {name})') from error
    if job.steps is None:
      raise UserError(f'--sweep: the length of {name} is in epochs of a data set of unknown size; set '
                      'data.unique_examples, or give the length in steps')
    jobs.append(job)
  return jobs


def plan_each(jobs: Iterable[Job], make: Callable[[Job], Plan]) -> list[Plan]:
  """A plan of each run; `make` is called once for all runs whose compiled steps differ only in constants."""
  jobs, made = list(jobs), {}
  for job in jobs:
    if _program(job) not in made:
      made[_program(job)] = make(job)
  return [dataclasses.replace(made[_program(job)], job=job) for job in jobs]


def _program(job: Job):
  """What the program of a step depends on, which excludes seeds, learning rates, weight decays and lengths."""
  config = job.config
  rates = dataclasses.replace(config.optimizer, learning_rate=0.0, weight_decay=0.0)
  return (config.family, config.model, job.image_shape, job.num_classes, config.data.batch_size, config.data.augment,
          config.objective, config.loss, config.distill, rates, config.system)
