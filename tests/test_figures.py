"""Figures of compiled programs. They do not vary from run to run, so these tests detect a change for the worse."""

import json
import subprocess
import sys

import command_line
import pytest

from vit_jax import config
from vit_jax.cost import slices
from vit_jax.rehearsal import compiler
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal import run_plan as plan_lib
from vit_jax.rehearsal.job import Choice
from vit_jax.training import config as run_config

COUNT = """
import jax, runpy, sys
compiled = []
def count(event, seconds, **_):
  if event == '/jax/core/compile/backend_compile_duration':
    compiled.append(seconds)
jax.monitoring.register_event_duration_secs_listener(count)
sys.argv = ['vit_jax.main', *sys.argv[1:]]
try:
  runpy.run_module('vit_jax.main', run_name='__main__', alter_sys=True)
except SystemExit as end:
  assert end.code == 0, end.code
print('compiled', len(compiled))
"""


needs_compiler = pytest.mark.skipif(compiler.missing() is not None, reason=str(compiler.missing()))


def _plan(sizes=(16, 1, 1), recipe='vit_b16', on='v5e-16', **fields):
  """A compiled plan, with as many micro-batches as a run has; by default on 16 chips with 64 pictures each."""
  recipe = config.load_recipe(str(command_line.ROOT / f'configs/{recipe}.py'))
  recipe.update_from_flattened_dict({name.replace('__', '.'): value for name, value in fields.items()})
  job, target = job_lib.open_job(run_config.cast(recipe)), slices.find(on)
  choice = Choice(sizes, 'none', job.microbatches(sizes, target)[0])
  return plan_lib.compiled(job, target, choice, target.chip.hbm_bytes)


def _estimate(plan):
  return plan_lib.estimated(plan.job, plan.target, plan.choice, plan.limit_bytes)


@pytest.mark.slow
@needs_compiler
def test_vit_b16_as_it_is_planned():
  """Limited by compute, with memory to spare; big_vision's moves 25.3 GB and needs 4.56 (experiments/speed)."""
  plan = _plan()
  assert plan.times.limit == 'compute' and plan.floor_mfu >= 0.95
  assert plan.outcome.hbm_bytes <= 19.5e9 and plan.outcome.peak_bytes <= 3.9e9
  assert 1 <= _estimate(plan).needs / plan.outcome.peak_bytes <= 1.25


@pytest.mark.slow
@needs_compiler
def test_fully_sharded_it_sends_little_more_than_it_must():
  """Three layers, so that it compiles quickly. Each chip gathers the weights twice, in bfloat16, and no activations."""
  plan = _plan((1, 16, 1), model__depth=3)
  assert plan.outcome.hbm_bytes <= 3.9e9 and plan.outcome.peak_bytes <= 0.8e9
  assert 1 <= plan.outcome.sent_bytes['within'] / _estimate(plan).work.within_bytes <= 1.1
  assert 1 <= _estimate(plan).needs / plan.outcome.peak_bytes <= 1.5


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize('fields, moved, peak', [
    ({}, 3.6e9, 0.7e9), ({'model__dtype': 'float32', 'system__microbatches': 1}, 8.5e9, 1.4e9),
    ({'data__batch_size': 4096}, 12e9, 0.9e9)], ids=['bfloat16', 'float32', 'batch4096'])
def test_two_layers_and_what_is_estimated_of_them(fields, moved, peak):
  """An estimate is what a launcher goes by: it lets nothing through that needs more. Few layers are estimated high."""
  plan = _plan(model__depth=2, **fields)
  assert plan.outcome.hbm_bytes <= moved and plan.outcome.peak_bytes <= peak
  assert 1 <= _estimate(plan).needs / plan.outcome.peak_bytes <= 1.8


@pytest.mark.slow
@needs_compiler
def test_smaller_slices_halve_what_a_narrow_layer_moves():
  """One layer of a ViT-S/16 moves 1.63 GB as one slice of 128 pictures, of which half is the pictures' preparation."""
  plan = _plan((1, 1, 1), 'vit_s16', 'v6e-1', model__depth=1, data__batch_size=128)
  assert plan.choice.microbatches == 2 and plan.outcome.hbm_bytes <= 1.27e9 and plan.outcome.peak_bytes <= 0.26e9


@pytest.mark.slow
@needs_compiler
def test_a_stage_of_swin_is_not_underestimated():
  """Its small windows are padded to whole tiles, and stages of one pair of blocks are never scanned."""
  recipe = config.load_recipe(str(command_line.ROOT / 'configs/swin_t.py'))
  recipe.model.depths, recipe.model.num_heads = (2,), (3,)
  job, target = job_lib.open_job(run_config.cast(recipe)), slices.find('v5e-16')
  plan = plan_lib.compiled(job, target, Choice((16, 1, 1), 'none', 1), target.chip.hbm_bytes)
  assert plan.outcome.hbm_bytes <= 19.5e9 and plan.outcome.peak_bytes <= 2.6e9
  assert 1 <= _estimate(plan).needs / plan.outcome.peak_bytes <= 1.8


@pytest.mark.slow
@needs_compiler
def test_the_kernel_lowers_traffic():
  """By a twelfth at least of the whole step of one layer, most of which is beside it."""
  plain, ours = (_plan(model__depth=1, system__execution__attention_kernel=kernel) for kernel in ('plain', 'auto'))
  assert ours.outcome.hbm_bytes <= 0.92 * plain.outcome.hbm_bytes
  assert ours.to_json()['flops_per_image'] == plain.to_json()['flops_per_image']
  assert ours.outcome.sent_bytes == plain.outcome.sent_bytes


@pytest.mark.slow
@needs_compiler
def test_a_step_of_all_pairs_holds_no_logits_of_them():
  """SigLIP's 32,768 pairs in two micro-batches, one layer a tower; those of twelve are in experiments/pair_loss."""
  done = subprocess.run([sys.executable, 'experiments/pair_loss/step.py', 'v5e-16', 'ring', 'full', '2', 'depth=1'],
                        capture_output=True, text=True, cwd=command_line.ROOT, env=command_line.AS_USERS)
  assert done.returncode == 0, done.stderr[-2000:]
  found = json.loads(done.stdout)
  assert found['peak_mb'] <= 6_250 and found['limit'] == 'compute' and found['mfu_at_floor'] >= 0.78
  assert found['with_batch'] == []  # the dense form has 2,048 x 32,768 on each chip


@pytest.mark.slow
def test_a_run_compiles_each_program_once(tmp_path):
  """These are the step, the evaluation, the initial state and tiny programs; evaluations and saves add none."""
  (tmp_path / 'tiny.py').write_text(command_line.recipe('c.train.steps = 24', 'c.evaluate.every = 2'))
  environment = {name: value for name, value in command_line.ON_CPU.items() if name != 'JAX_COMPILATION_CACHE_DIR'}
  done = subprocess.run([sys.executable, '-c', COUNT, f'--config={tmp_path}/tiny.py', f'--workdir={tmp_path}/run'],
                        capture_output=True, text=True, cwd=command_line.ROOT, env=environment)
  assert done.returncode == 0, done.stderr
  assert 3 <= int(done.stdout.split()[-1]) <= 24


@pytest.mark.slow
def test_the_script_that_measures_a_gpu_runs_anywhere(tmp_path):
  """With tiny shapes: each part says its line, and the killed run ends as the other."""
  done = subprocess.run(['experiments/speed/gpu.sh', tmp_path, '--tiny'], cwd=command_line.ROOT, text=True,
                        env=command_line.ON_CPU | {'PYTHON': sys.executable}, capture_output=True)
  assert done.returncode == 0, done.stderr
  for said in ('part card, kind cpu', '| ViT, tiny | ', '| ResNet, tiny | ', 'part packed, runs 8', 'part timm',
               '1 of 1 killed runs ended byte-equal to the undisturbed one'):
    assert said in done.stdout, (said, done.stdout, (tmp_path / 'gpu.err').read_text()[-2000:])
  assert 'exit code' not in done.stdout and (tmp_path / 'gpu.md').read_text() == done.stdout
