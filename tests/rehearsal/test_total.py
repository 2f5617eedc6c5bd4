"""The plan of a sweep: equal programs are compiled once, and trunks are counted once."""

import dataclasses

import pytest

from vit_jax.cost import slices
from vit_jax.errors import UserError
from vit_jax.layers import stack
from vit_jax.rehearsal import compiler, plan_text, total
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal import run_plan as plan_lib
from vit_jax.training import config as run_config

SLICE = slices.find('v5e-8')


def _jobs(config, *changes):
  jobs = []
  for change in changes:
    c = config.copy_and_resolve_references()
    c.update_from_flattened_dict(change)
    jobs.append(job_lib.open_job(run_config.cast(c)))
  return jobs


def _make(job):
  return plan_lib.estimated(job, SLICE, job_lib.choices_on(job, SLICE)[0], 16e9)


def test_runs_that_differ_only_in_constants_are_planned_once(tiny_config):
  jobs = _jobs(tiny_config, {'seed': 1}, {'optimizer.learning_rate': 0.5}, {'train.steps': 99}, {'model.width': 32},
               {'data.augment.mixup': 0.3})
  made = []
  plans = total.plan_each(jobs, lambda job: made.append(job) or _make(job))
  assert made == [jobs[0], jobs[3], jobs[4]]
  assert [plan.job for plan in plans] == jobs
  assert plans[2].chip_hours(0.4) / plans[0].chip_hours(0.4) == pytest.approx(99 / 16)


def test_the_sum(tiny_config):
  plans = [_make(job) for job in _jobs(tiny_config, {}, {'train.steps': 32})]
  whole = total.Total((('a', plans[0]), ('b', plans[1])), 3e18, 2e18, SLICE, 0.5, 2.0)
  hours = 2e18 * sum(plan.chip_hours(0.5) for plan in plans) / sum(plan.flops for plan in plans)
  assert all(plan.floor_mfu < 0.5 for plan in plans) and hours > 2e18 / (0.5 * 197e12) / 3600
  assert whole.fits is None and whole.to_json()['chip_hours'] == pytest.approx(hours)
  assert whole.to_json()['cost'] == pytest.approx(2 * hours)
  text = '\n'.join(plan_text.sweep(whole))
  assert f'{hours:,.1f} chip-hours at 50% MFU or the floor ({1.5 * hours:,.1f} if no run shared its trunk)' in text
  refused = dataclasses.replace(plans[1], outcome=compiler.Refused('too large', 1e12))
  worse = dataclasses.replace(whole, plans=(('a', plans[0]), ('b', refused)))
  assert worse.fits is False and '1 do not fit: b' in plan_text.sweep(worse)[-1]


def test_the_text_of_a_plan(tiny_config):
  job, = _jobs(tiny_config, {})
  plan = _make(job)
  text = '\n'.join(plan_text.lines(plan, 'tiny', 0.4, 1.2))
  for said in (f'tiny: {job.params:,} parameters', '8, v5e-8 (8 chips, 2x4)', 'remat=none, 1 micro-batch',
               'rules of thumb', '16 steps', 'MFU', '$0 at $1.2 per chip-hour', '--config.system.mesh.data=8'):
    assert said in text, (said, text)
  refused = dataclasses.replace(plan, outcome=compiler.Refused('too large', 20e9), limit_bytes=16e9)
  assert 'needs 20.00 GB per chip, available 16.00 GB, 4.00 GB over the limit' in plan_text.shortfall(refused)


@pytest.mark.parametrize('mfu', [0.01, 0.4, 1.0])
def test_no_cost_is_below_the_floor(tiny_config, mfu):
  """Whatever utilisation is assumed, and whatever limits the step."""
  job, = _jobs(tiny_config, {})
  for hbm_bytes in (1e3, 1e12):
    plan = _make(job)
    plan = dataclasses.replace(plan, work=dataclasses.replace(plan.work, flops=2e12, hbm_bytes=hbm_bytes))
    floor = plan.times.floor * job.steps * plan.target.chips / 3600
    used = plan.flops / (mfu * plan.target.chip.peak_flops) / 3600
    assert plan.chip_hours(mfu) == pytest.approx(max(floor, used))
    said = '\n'.join(plan_text.lines(plan, 'tiny', mfu, None))
    assert (f'the {plan.floor_mfu:.0%} MFU of the floor' in said) == (floor > used)


def test_the_text_names_the_kernel_and_how_layers_are_run(tiny_config):
  job, = _jobs(tiny_config, {'model.dtype': 'bfloat16', 'model.depth': 3})
  said = '\n'.join(plan_text.lines(_make(job), 'tiny', 0.4, None))
  assert '3 layers unrolled; attention rows: a Pallas kernel' in said
  job, = _jobs(tiny_config, {'model.depth': 25, 'system.execution.attention_kernel': 'plain'})
  assert '25 layers scanned; attention plain: by the compiler' in '\n'.join(
      plan_text.lines(_make(job), 'tiny', 0.4, None))


def test_an_error_in_a_run_of_a_sweep_names_the_run(tiny_config):
  config = tiny_config.copy_and_resolve_references()
  config.data.source, config.data.image_size, config.data.num_classes = 'tfds:not_here', (8, 8), 10
  absent = run_config.cast(config)
  assert [job.steps for job in total.open_jobs(['a'], [absent])] == [16]
  config.train.steps, config.train.epochs = 0, 2
  with pytest.raises(UserError, match='the length of b is in epochs of a data set of unknown size'):
    total.open_jobs(['a', 'b'], [absent, run_config.cast(config)])
  tiny_config.parametrisation.name, tiny_config.model.width = 'mup', 12
  with pytest.raises(UserError, match='in the run c'):
    total.open_jobs(['c'], [run_config.cast(tiny_config)])


def test_the_largest_that_does_not_fit_comes_first(tiny_config):
  plans = [_make(job) for job in _jobs(tiny_config, {}, {'model.width': 64}, {'model.width': 32})]
  whole = total.Total(tuple(zip('abc', plans)), 1, 1, SLICE)
  assert whole.too_large == []
  small = [dataclasses.replace(plan, limit_bytes=plans[0].needs) for plan in plans]
  assert [name for name, _ in dataclasses.replace(whole, plans=tuple(zip('abc', small))).too_large] == ['b', 'c']


def test_a_run_of_unknown_length_has_no_chip_hours(tiny_config):
  with pytest.raises(UserError, match='train: give exactly one'):
    _jobs(tiny_config, {'train.steps': 0})


def test_the_least_recomputation_that_fits_is_planned(tiny_config):
  job, = _jobs(tiny_config, {})
  needs = {remat: plan_lib.estimated(job, SLICE, job_lib.Choice((8, 1, 1), remat, 1), 1.0).needs
           for remat in stack.POLICIES}
  for limit, chosen in ((needs['none'], 'none'), (needs['dots'], 'dots'), (needs['full'], 'full'), (1.0, 'full')):
    make = lambda choice, limit=limit: plan_lib.estimated(job, SLICE, choice, limit)
    plan = plan_lib.first_that_fits(job, SLICE, make)
    assert plan.choice.remat == chosen and plan.should_fit == (limit > 1.0)
    assert plan.fits is (None if limit > 1.0 else False)  # the state alone is too large
    assert [other.choice.remat for other in plan.before] == list(stack.POLICIES[:stack.POLICIES.index(chosen)])
    said = '\n'.join(plan_text.lines(plan, 'tiny', 0.4, None))
    assert ('would not fit before: remat=none needs' in said) == (chosen != 'none')
  job, = _jobs(tiny_config, {'system.execution.remat': 'none'})
  assert [choice.remat for choice in job_lib.choices_on(job, SLICE)] == ['none']
