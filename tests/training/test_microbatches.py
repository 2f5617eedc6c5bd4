"""The number of micro-batches that devices are given where the config leaves it open."""

import pytest

from vit_jax import config
from vit_jax.cost import gpus, slices
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal import plan_text
from vit_jax.rehearsal import run_plan as plan_lib
from vit_jax.training import config as run_config

LARGE = {'data.batch_size': 4096}


def _plan(recipe, fields, target):
  c = config.load_recipe(f'configs/{recipe}.py')
  c.update_from_flattened_dict(fields)
  job = job_lib.open_job(run_config.cast(c))
  choices = job_lib.choices_on(job, target)
  assert len({choice.microbatches for choice in choices}) == 1  # whatever is recomputed
  return plan_lib.estimated(job, target, choices[0], target.chip.hbm_bytes)


@pytest.mark.parametrize('recipe, fields, number, why', [
    ('vit_b16', {}, 1, 'the activations of 64 images'),
    ('vit_b16', LARGE, 4, 'the activations of 64 images'),
    ('vit_b16', {'model.dtype': 'float32'}, 2, 'the activations of 32 images'),
    ('vit_b16', LARGE | {'system.mesh.data': 1, 'system.mesh.fsdp': 16}, 1, 'gather the parameters again'),
    ('vit_b16', LARGE | {'model.depth': 25}, 1, 'scanned'),
    ('vit_b16', LARGE | {'model.width': 6144}, 1, 'cost more to add up'),
    ('vit_b16', LARGE | {'system.microbatches': 2}, 2, 'as configured'),
    ('resnet50', LARGE, 1, 'batch norm'),
    ('swin_t', LARGE, 1, 'not measured'),
    ('siglip_b16', LARGE, 1, 'the whole batch'),
])
def test_on_a_tpu_activations_stay_near_the_cores(recipe, fields, number, why):
  plan = _plan(recipe, fields, slices.find('v5e-16'))
  chosen, said = plan.job.microbatches(plan.choice.sizes, plan.target)
  assert plan.choice.microbatches == chosen == number and why in said
  execution = dict(line.split(maxsplit=1) for line in plan_text.lines(plan, 'b16', 0.4, None))['execution']
  assert (f'{number} micro-batches, {said}' in execution) == (number > 1)


@pytest.mark.parametrize('recipe, name, number', [
    ('vit_s16', 'v6e-8', 2), ('vit_s16', 'v6e-16', 1), ('vit_s16', 'v5e-8', 2), ('vit_b16', 'v6e-16', 2),
    ('vit_b16', 'v5p-32', 1)])
def test_slices_are_smaller_where_a_step_would_wait_for_memory(recipe, name, number):
  assert _plan(recipe, {}, slices.find(name)).choice.microbatches == number


def test_on_a_gpu_a_batch_is_whole():
  assert _plan('vit_b16', LARGE, gpus.find('h100-8')).choice.microbatches == 1
