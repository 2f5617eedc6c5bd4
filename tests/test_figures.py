"""Figures of compiled programs. They do not vary from run to run, so these tests detect a change for the worse."""

import functools
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


@functools.cache
def _plan(kernel):
  """(plan, estimate) of a ViT-B/16's step at batch 1024, fully sharded over 16 chips."""
  recipe = config.load_recipe(str(command_line.ROOT / 'configs/vit_b16.py'))
  recipe.system.execution.attention_kernel = kernel
  job = job_lib.open_job(run_config.cast(recipe))
  target, choice = slices.find('v5e-16'), Choice((1, 16, 1), 'dots', 1)
  return tuple(plan(job, target, choice, target.chip.hbm_bytes) for plan in (plan_lib.compiled, plan_lib.estimated))


@pytest.mark.slow
@pytest.mark.skipif(compiler.missing() is not None, reason=str(compiler.missing()))
def test_vit_b16_fully_sharded_on_16_chips():
  """At batch 1024: memory, recomputation, and bytes sent compared with the least that such a program has to send.

  Each chip gathers the weights twice, in bfloat16, and gathers no activations.
  """
  plan, least = _plan('none')
  figures = plan.to_json()
  assert figures['peak_hbm_gb'] <= 2.9 and figures['recomputed_share'] <= 0.10
  assert figures['flops_per_image'] == pytest.approx(3 * 2 * 17.47e9, rel=0.02)
  assert plan.outcome.hbm_bytes <= 55e9
  assert plan.outcome.sent_bytes['within'] <= 1.1 * least.work.within_bytes
  weights = 2 * 2 * figures['params'] * 15 / 16
  assert plan.outcome.collectives['all-gather']['bytes'] == pytest.approx(weights, rel=0.03)


@pytest.mark.slow
@pytest.mark.skipif(compiler.missing() is not None, reason=str(compiler.missing()))
def test_splash_attention_lowers_memory_and_traffic():
  """The same step with the kernel needs less memory at the peak and moves an eighth less."""
  plain, splash = _plan('none')[0], _plan('splash')[0]
  assert splash.outcome.peak_bytes <= plain.outcome.peak_bytes
  assert splash.outcome.hbm_bytes <= 0.88 * plain.outcome.hbm_bytes
  assert splash.to_json()['flops_per_image'] == plain.to_json()['flops_per_image']
  assert splash.outcome.sent_bytes == plain.outcome.sent_bytes


@pytest.mark.slow
def test_a_run_compiles_each_program_once(tmp_path):
  """These are the step, the evaluation, the initial state and tiny programs; evaluations and saves add none."""
  (tmp_path / 'tiny.py').write_text(command_line.recipe('c.train.steps = 24', 'c.evaluate.every = 2'))
  environment = {name: value for name, value in command_line.ON_CPU.items() if name != 'JAX_COMPILATION_CACHE_DIR'}
  done = subprocess.run([sys.executable, '-c', COUNT, f'--config={tmp_path}/tiny.py', f'--workdir={tmp_path}/run'],
                        capture_output=True, text=True, cwd=command_line.ROOT, env=environment)
  assert done.returncode == 0, done.stderr
  assert 3 <= int(done.stdout.split()[-1]) <= 24
