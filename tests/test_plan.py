"""The command python -m vit_jax.plan."""

import json
import subprocess
import sys

import command_line
import pytest

from vit_jax.rehearsal import compiler

RECIPE = command_line.recipe(
    "c.data.source, c.data.num_classes, c.data.image_size, c.data.channels = 'tfds:not_here', 10, (8, 8), 3",
    'c.train.steps = 60')


@pytest.fixture(name='recipe')
def _recipe(tmp_path):
  path = tmp_path / 'tiny.py'
  path.write_text(RECIPE)
  return path


def _plan(*flags):
  return command_line.run('plan', *flags)


@pytest.mark.skipif(compiler.missing() is not None, reason=str(compiler.missing()))
@pytest.mark.slow
def test_a_plan_without_tpu_and_without_data(recipe):
  done = _plan(f'--config={recipe}', '--tpu=v5litepod-4', '--json')
  assert done.returncode == 0, done.stderr
  plan = json.loads(done.stdout)
  assert plan['fits'] is True and plan['chips'] == 4 and plan['mesh'] == {'data': 4, 'fsdp': 1, 'tensor': 1}
  assert plan['estimated'] is False and plan['recomputed_share'] == 0
  assert plan['microbatch'] == 1 and plan['remat'] == 'none'
  assert plan['collectives']['all-reduce']['count'] > 0 and plan['floor_s'] > 0
  assert plan['limit'] in ('compute', 'hbm', 'interconnect')
  said = _plan(f'--config={recipe}', '--tpu=v5e-4', '--max_hbm_gb=0.0001', '--mfu=0.5', '--price=2')
  assert said.returncode == 1 and 'does not fit' in said.stdout and 'GB over the limit' in said.stdout
  assert 'no choice fits' in said.stdout and 'chip-hours at ' in said.stdout


def test_without_a_compiler_the_plan_is_an_estimate(recipe):
  program = ("import runpy; from vit_jax.rehearsal import compiler; "
             "compiler.missing = lambda devices: 'no compiler: uv run'; "
             "runpy.run_module('vit_jax.plan', run_name='__main__')")
  done = subprocess.run([sys.executable, '-c', program, f'--config={recipe}', '--tpu=v5p-8', '--price=4.2'],
                        capture_output=True, text=True, cwd=command_line.ROOT, env=command_line.ON_CPU)
  assert done.returncode == 0, done.stderr
  for said in ('tiny: ', '4, v5p-8 (4 chips, 2x2x1)', 'data=4 fsdp=1 tensor=1', 'estimated', 'rules of thumb',
               '60 steps', 'at $4.2 per chip-hour', 'not used, all of this is estimated: no compiler: uv run'):
    assert said in done.stdout, (said, done.stdout)
  assert 'Without it, the plan is an estimate' in done.stderr


def test_a_plan_for_gpus_is_an_estimate(recipe):
  done = _plan(f'--config={recipe}', '--gpu=h100-16', '--price=3', '--config.model.dtype=bfloat16')
  assert done.returncode == 0, done.stderr
  for said in ('16, h100-16 (16 x NVIDIA H100 80GB HBM3 in 2 hosts)', 'data=16 fsdp=1 tensor=1, remat=none',
               'attention cudnn: ', 'GB per chip, estimated: parameters ', 'rules of thumb', 'at $3 per chip-hour',
               'not used, all of this is estimated: XLA compiles for GPUs only where one is'):
    assert said in done.stdout, (said, done.stdout)


@pytest.mark.parametrize('flags, said', [
    (('--tpu=v5e-17',), 'no slice has this size; the nearest: v5e-16 (16 chips, 4x4) or v5e-32 (32 chips, 4x8)'),
    (('--tpu=v5e-4', '--config.system.mesh.fsdp=3'), 'its sizes must multiply to the 4 devices of v5e-4'),
    (('--tpu=v5e-64',), 'data.batch_size=32: must be a multiple of 64'),
    ((), 'expected one of --tpu and --gpu'),
    (('--gpu=h100-8', '--search'), '--search: XLA compiles for GPUs only where one is')])
def test_bad_input(recipe, flags, said):
  done = _plan(f'--config={recipe}', *flags)
  assert done.returncode == 1 and done.stderr.startswith('error: ') and said in done.stderr, done.stderr
  assert 'Traceback' not in done.stderr
