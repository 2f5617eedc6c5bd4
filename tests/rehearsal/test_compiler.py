"""Plans from the TPU compiler itself, if it is installed."""

import math
import os
import select
import subprocess
import sys

import pytest

from vit_jax import host
from vit_jax.cost import slices
from vit_jax.errors import UserError
from vit_jax.rehearsal import compiler, estimate
from vit_jax.rehearsal import job as job_lib
from vit_jax.rehearsal import run_plan as plan_lib
from vit_jax.rehearsal.compiler import Compiled
from vit_jax.rehearsal.job import Choice
from vit_jax.training import config as run_config

needs_compiler = pytest.mark.skipif(compiler.missing() is not None, reason=str(compiler.missing()))
PRESETS = {'dp': (8, 1, 1), 'fsdp': (1, 8, 1), 'tp': (1, 1, 8), 'fsdp_tp': (1, 4, 2)}


@pytest.fixture(name='job')
def _job(tiny_config):
  """A job that compiles quickly, but is wide enough that scalars and biases are small beside the kernels."""
  c = tiny_config
  c.model.width, c.model.mlp_dim, c.model.num_heads, c.model.dtype = 512, 1024, 8, 'bfloat16'
  c.data.batch_size, c.data.augment.mixup = 64, 0.2
  return job_lib.open_job(run_config.cast(c))


def _compile(job, choice, name='v5e-8', count=1):
  return plan_lib.compiled(job, slices.find(name, count), choice, 16 * 2**30)


def _agrees(plan):
  """Checks that the analytic size of parameters and optimizer is that of the arguments that are updated, to 1%."""
  assert plan.fits
  assert plan.memory.parameters + plan.memory.optimizer == pytest.approx(plan.outcome.state_bytes, rel=0.01)
  assert plan.outcome.argument_bytes >= plan.outcome.state_bytes
  assert plan.memory.peak == plan.outcome.peak_bytes and min(plan.memory.activations, plan.memory.temporaries) >= 0


@needs_compiler
def test_a_plan_from_the_compiler(job):
  before = dict(os.environ)
  plan = _compile(job, Choice((8, 1, 1), 'none', 1))
  assert dict(os.environ) == before  # the variables that silence libtpu would disable the detection of a real cluster
  _agrees(plan)
  reduced = plan.outcome.collectives['all-reduce']['bytes']
  least = plan_lib.estimated(job, plan.target, plan.choice, 1.0).work.within_bytes
  assert least < reduced < 1.5 * least  # the gradients: most in bfloat16, a few in float32
  assert plan.outcome.sent_bytes['between'] == 0 and plan.outcome.hbm_bytes > plan.outcome.state_bytes
  assert set(plan.to_json()) == {
      'fits', 'estimated', 'chips', 'peak_hbm_gb', 'memory_gb', 'params', 'flops_per_image', 'recomputed_share', 'mesh',
      'remat', 'microbatch', 'floor_s', 'limit', 'collectives', 'compile_s'}


@needs_compiler
@pytest.mark.slow
def test_a_teacher_is_among_the_arguments(taught):
  job, choice = job_lib.open_job(run_config.cast(taught)), Choice((2, 4, 1), 'none', 1)
  plan = _compile(job, choice)
  batch = plan.outcome.argument_bytes - plan.outcome.state_bytes - estimate.teacher_bytes(job, choice.sizes)
  assert 0 <= batch < 1e5 < estimate.teacher_bytes(job, choice.sizes)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize('preset', PRESETS)
def test_state_bytes_on_every_preset(job, preset):
  _agrees(_compile(job, Choice(PRESETS[preset], 'dots', 2)))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize('name, count, sizes', [
    ('v4-16', 1, (8, 1, 1)), ('v5p-16', 1, (2, 4, 1)), ('v5p-128', 1, (2, 32, 1)), ('v6e-1', 1, (1, 1, 1)),
    ('tpu7x-8', 1, (4, 2, 1)), ('v5e-4', 2, (2, 4, 1)), ('v5e-4', 2, (4, 2, 1))])
def test_every_generation_and_two_slices(job, name, count, sizes):
  plan = _compile(job, Choice(sizes, 'none', 1), name, count)
  assert plan.fits and plan.target.devices == math.prod(sizes)
  least = plan_lib.estimated(job, plan.target, plan.choice, 1.0).work.between_bytes
  assert least <= plan.outcome.sent_bytes['between'] <= 1.1 * least  # some gradients are float32
  assert (least > 0) == ('all-reduce between slices' in plan.outcome.collectives) == (count > 1)
  if name == 'tpu7x-8':  # two devices per chip
    assert plan.memory.peak == 2 * plan.outcome.peak_bytes


@needs_compiler
@pytest.mark.slow
def test_a_step_that_does_not_fit_is_refused(job):
  c = job.config
  import dataclasses
  data = dataclasses.replace(c.data, batch_size=2**22)
  job = dataclasses.replace(job, config=dataclasses.replace(c, data=data))
  plan = _compile(job, Choice((8, 1, 1), 'none', 1))
  assert plan.fits is False and not isinstance(plan.outcome, Compiled)
  assert plan.needs > plan.limit_bytes and 'HBM' in plan.outcome.why


@needs_compiler
def test_a_compile_can_be_stopped(job):
  with pytest.raises(compiler.OutOfTime):
    compiler.compile_step(job, slices.find('v5e-8'), Choice((8, 1, 1), 'none', 1), seconds=0.1)


def test_the_compiler_ends_when_its_parent_is_killed():
  """A killed parent cannot stop it. Here it has not read its request yet, as its stdin stays open."""
  asks = ('import os, subprocess, sys, time; '
          'subprocess.Popen([sys.executable, "-m", "vit_jax.rehearsal.worker", str(os.getpid())]); '
          'print("asked", flush=True); time.sleep(60)')
  with subprocess.Popen([sys.executable, '-c', asks], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                        bufsize=0) as parent:
    assert parent.stdout.readline() == b'asked\n'
    parent.kill()
    assert select.select([parent.stdout], [], [], 20)[0] and parent.stdout.read() == b''  # closed by both processes


def test_without_a_compiler_the_error_names_the_command_that_installs_it(job, monkeypatch):
  monkeypatch.setattr(compiler.importlib.util, 'find_spec', lambda name: None)
  monkeypatch.setattr(sys, 'platform', 'linux')
  monkeypatch.setattr(compiler.platform, 'machine', lambda: 'x86_64')
  with pytest.raises(UserError, match='uv run --extra plan'):
    compiler.compile_step(job, slices.find('v5e-8'), Choice((8, 1, 1), 'none', 1))
  monkeypatch.setattr(sys, 'platform', 'darwin')
  assert 'docker run --platform=linux/amd64' in compiler.missing()


def test_libtpu_is_silenced_where_there_is_no_tpu(monkeypatch):
  monkeypatch.setattr(host, 'has_tpu', lambda: False)
  monkeypatch.setattr(host.importlib.util, 'find_spec', lambda name: True)
  for name in host.WITHOUT_TPU:
    monkeypatch.setenv(name, 'to be restored')
    monkeypatch.delenv(name)
  host.hush_absent_tpu()
  assert all(os.environ[name] == value for name, value in host.WITHOUT_TPU.items())
  monkeypatch.setattr(host, 'has_tpu', lambda: True)
  monkeypatch.delenv('TPU_WORKER_ID')
  host.hush_absent_tpu()
  assert 'TPU_WORKER_ID' not in os.environ
