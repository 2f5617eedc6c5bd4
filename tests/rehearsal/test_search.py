"""The search, with a fake compiler whose answers are known."""

import pytest

from vit_jax import config
from vit_jax.cost import slices
from vit_jax.rehearsal import compiler, search
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal import run_plan as plan_lib
from vit_jax.rehearsal.compiler import Compiled, Refused
from vit_jax.training import config as run_config

SLICE = slices.find('v5e-8')


@pytest.fixture(name='job')
def _job(tiny_config):
  tiny_config.data.batch_size = 512
  return job_lib.open_job(run_config.cast(tiny_config))


@pytest.fixture(name='world')
def _world(monkeypatch):
  """A fake compiler: it needs memory_error x the estimate, refuses above `capacity`, and records its calls."""
  class World:
    memory_error, capacity, calls = 1.0, float('inf'), []

    def compile_step(self, job, target, choice, seconds=None, waiting=None):
      self.calls.append(choice)
      guess = plan_lib.estimated(job, target, choice, self.capacity)
      need = guess.memory.parameters + guess.memory.optimizer + self.memory_error * (
          guess.memory.activations + guess.memory.temporaries)
      if need > self.capacity:
        return Refused('RESOURCE_EXHAUSTED', need)
      return Compiled(int(need), 0, 0, 0, int(guess.memory.activations), int(guess.work.hbm_bytes), {},
                      {'within': guess.work.within_bytes, 'between': 0.0}, 0.1, 1.0, {})

  world = World()
  world.calls = []
  monkeypatch.setattr(compiler, 'compile_step', world.compile_step)
  return world


def _all(job, limit):
  return [plan_lib.estimated(job, SLICE, choice, limit) for choice in search.choices(job, SLICE)]


def test_choices_are_those_that_a_run_accepts(job):
  choices = list(search.choices(job, SLICE))
  assert len(set(choices)) == len(choices)
  assert {choice.sizes for choice in choices} == {
      (data, fsdp, tensor) for data in (1, 2, 4, 8) for fsdp in (1, 2, 4, 8) for tensor in (1, 2, 4, 8)
      if data * fsdp * tensor == 8}  # width 16, MLP 32 and 8 heads divide by all of them
  for choice in choices:
    job_lib.check(job, SLICE, choice)
  assert max(choice.microbatches for choice in choices if choice.sizes == (8, 1, 1)) == 64


@pytest.mark.parametrize('family, fields, sizes', [
    ('resnet', dict(depths=(1,), widths=(32,), stem_width=8), {(8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1)}),
    ('convnext', dict(depths=(1,), widths=(8,)), {(8 // fsdp // tensor, fsdp, tensor) for fsdp in (1, 2, 4, 8)
                                                 for tensor in (1, 2, 4, 8) if fsdp * tensor <= 8}),
])
def test_choices_of_cnns(family, fields, sizes):
  """A CNN has nothing that `tensor` can split unless it has MLPs; with batch norm, micro-batches stay as they are."""
  c = config.defaults(family)
  c.model.update(fields)
  c.data.batch_size, c.system.microbatches, c.train.steps = 512, 2, 10
  job = job_lib.open_job(run_config.cast(c))
  choices = list(search.choices(job, SLICE))
  assert {choice.sizes for choice in choices} == sizes
  assert ({choice.microbatches for choice in choices} == {2}) == (family == 'resnet')
  assert all(plan_lib.estimated(job, SLICE, choice, 1e9).needs > 0 for choice in choices)


def test_with_good_estimates_the_fastest_that_fits_is_found(job, world):
  limit = sorted(plan.needs for plan in _all(job, 1.0))[len(_all(job, 1.0)) // 3]
  plans = search.search(job, SLICE, limit, lambda text: None)
  best = min(plan.times.floor for plan in _all(job, limit) if plan.needs <= limit)
  assert plans[0].fits and plans[0].times.floor <= 1.06 * best
  assert len(world.calls) <= search.MOST_COMPILES


@pytest.mark.parametrize('error', [0.5, 1.7, 4.0])
def test_a_refused_plan_never_fits(job, world, error):
  world.memory_error = error
  world.capacity = limit = sorted(plan.needs for plan in _all(job, 1.0))[len(_all(job, 1.0)) // 2]
  said = []
  plans = search.search(job, SLICE, limit, said.append)
  assert len(world.calls) == len(plans) <= search.MOST_COMPILES and len(set(world.calls)) == len(plans)
  for plan in plans:
    assert plan.fits == isinstance(plan.outcome, Compiled)
    assert plan.needs <= limit or not plan.fits
  true_need = lambda memory: memory.parameters + memory.optimizer + error * (memory.activations + memory.temporaries)
  # The search has corrected the error of the estimates.
  assert plans[0].fits == any(true_need(plan.memory) <= limit for plan in _all(job, 1.0))
  assert [plan.fits for plan in plans] == sorted((plan.fits for plan in plans), reverse=True)
  assert sum(text.startswith('compile') for text in said) == len(plans)


def test_where_nothing_fits_the_smallest_is_tried(job, world):
  world.capacity = limit = 1000.0
  plans = search.search(job, SLICE, limit, lambda text: None)
  assert plans and not any(plan.fits for plan in plans)
  assert min(plan.needs for plan in _all(job, limit)) == min(plan.needs for plan in plans)


def test_a_search_ends_when_its_time_is_over(job, monkeypatch):
  def slow(*_, **__):
    raise compiler.OutOfTime
  monkeypatch.setattr(compiler, 'compile_step', slow)
  said = []
  assert search.search(job, SLICE, 16e9, said.append, seconds=1) == [] and 'stopped' in said[-1]


def test_the_nearest_choice_that_fits_keeps_the_mesh_and_micro_batches(job, world):
  choice = job_lib.Choice((8, 1, 1), 'none', 1)
  alone = plan_lib.estimated(job, SLICE, job_lib.Choice((8, 1, 1), 'full', 1), 1.0)
  limit = 1.2 * alone.needs
  near = search.nearest_fit(job, SLICE, choice, limit, print)
  assert near.fits and near.choice.sizes == (8, 1, 1) and near.choice.microbatches == 1 and near.choice.remat != 'none'
  assert search.nearest_fit(job, SLICE, choice, 1.0, print) is None and world.calls == [near.choice]


def test_a_nearby_choice_that_the_compiler_refuses_is_not_offered(job, world):
  world.memory_error, world.capacity = 1.4, 2e6
  near = search.nearest_fit(job, SLICE, job_lib.Choice((8, 1, 1), 'none', 1), 2e6, print)
  assert len(world.calls) <= 2 and (near is None or near.fits)
