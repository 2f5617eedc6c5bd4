"""Masked autoencoders are run as classifiers are: on every mesh, from a trunk, killed and resumed, with a probe."""

import dataclasses
import io
import itertools
import signal
import subprocess

import command_line
import jax
import numpy as np
import pytest

from vit_jax import config, records, testing
from vit_jax.console import Console
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import config as run_config
from vit_jax.training import loop, probing, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

pytestmark = pytest.mark.slow
MESHES = [sizes for sizes in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(sizes) == 8]
STEPS = (10, 20)  # lengths; cooldowns of 30% begin after 7 and 14 steps


def recipe(**changes):
  c = config.defaults('vit', 'reconstruct')
  c.model.update(dict(patch_size=2, width=32, depth=2, mlp_dim=64, num_heads=8, dropout=0.1))
  c.loss.update(dict(decoder_width=32, decoder_depth=1, decoder_mlp_dim=64, decoder_num_heads=8))
  c.data.batch_size, c.train.steps = 16, 4
  c.update_from_flattened_dict(changes)
  return c


def quiet():
  return Display(Console(file=io.StringIO()))


@pytest.mark.parametrize('blocks', ['jit', 'shard_map'])
def test_every_mesh_of_eight_devices_computes_the_same(blocks):
  assert len(MESHES) == 10
  alone = testing._run(recipe(**{'system.execution.blocks': blocks}))
  expected = testing._gradients(alone)
  for sizes in MESHES:
    mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(*sizes), jax.devices())
    testing._assert_alike(expected, testing._gradients(dataclasses.replace(alone, mesh=mesh)))


def test_a_branch_ends_bit_for_bit_where_the_run_alone_ends(tmp_path):
  prepared = lambda steps: run_config.cast(recipe(**{
      'schedule.name': 'wsd', 'schedule.warmup_steps': 2, 'train.steps': steps, 'evaluate.probe': 60,
      'evaluate.every': max(STEPS)}))
  loop.train(run_lib.prepare_trunk(prepared(max(STEPS)), (7, 14)), tmp_path / 'trunk', quiet())
  for steps in STEPS:
    run = run_lib.prepare(prepared(steps))
    loop.train(run, tmp_path / f'branch{steps}', quiet(), trunk=tmp_path / 'trunk')
    loop.train(run, tmp_path / f'alone{steps}', quiet())
    ours, theirs = (command_line.final_arrays(tmp_path / f'{name}{steps}') for name in ('branch', 'alone'))
    assert ours == theirs and any('decoder' in name for name in ours)
    rows = [[row for row in records.read_rows(tmp_path / f'{name}{steps}' / records.METRICS) if row['step'] == steps
             and row['split'] != 'train'] for name in ('branch', 'alone')]
    assert rows[0] == rows[1] and 'probe/error' in rows[0][0]


def test_killed_it_resumes_to_the_same_bytes(tmp_path):
  (tmp_path / 'recipe.py').write_text(command_line.recipe(
      "c.objective = 'reconstruct'", 'c.model.patch_size, c.train.steps = 2, 60',
      'c.loss.update(dict(decoder_width=16, decoder_depth=1, decoder_mlp_dim=24, decoder_num_heads=2))',
      'c.evaluate.every, c.system.log_every, c.system.save_every, c.evaluate.probe = 20, 3, 10, 60'))
  flags = lambda name: [f'--config={tmp_path}/recipe.py', f'--workdir={tmp_path}/{name}']
  killed = subprocess.Popen(command_line.command('main', *flags('killed')), cwd=command_line.ROOT,
                            env=command_line.ON_CPU, stdout=subprocess.PIPE, text=True)
  for line in killed.stdout:
    if line.startswith('step 3'):  # of 33 or later
      killed.send_signal(signal.SIGKILL)
      break
  assert killed.wait() == -signal.SIGKILL
  killed.stdout.close()
  for name in ('killed', 'undisturbed'):
    done = command_line.run('main', *flags(name))
    assert done.returncode == 0, done.stderr
  logs = [(tmp_path / name / records.METRICS).read_bytes() for name in ('killed', 'undisturbed')]
  assert logs[0] == logs[1] and logs[0].count(b'probe/error') == 4
  assert command_line.final_arrays(tmp_path / 'killed') == command_line.final_arrays(tmp_path / 'undisturbed')


def test_a_probe_is_the_same_each_time_it_is_made():
  run = run_lib.prepare(run_config.cast(recipe(**{'evaluate.probe': 100})))
  train_state = state.create(run.model, run.config, run.mesh)
  first, again = (probing.scores(run, train_state.params, train_state.stats, 'val') for _ in range(2))
  assert first == again and 0 < first['probe/error'] < 0.9
