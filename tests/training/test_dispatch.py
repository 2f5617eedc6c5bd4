"""Calls of several steps compute the same as calls of one step, and end where something is due."""

import copy
import io

import jax
import numpy as np
import pytest
from rich.console import Console

from tests.command_line import final_arrays
from vit_jax import goodput, records
from vit_jax.errors import UserError
from vit_jax.survival.stop import Stopped
from vit_jax.training import config as run_config
from vit_jax.training import dispatch, loop, packed, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
  monkeypatch.setattr(run_lib.mesh_lib, 'make_mesh', lambda config, make=run_lib.mesh_lib.make_mesh: make(
      config, jax.devices()[:1]))


def _run(config, steps_per_call=0, **changes):
  c = copy.deepcopy(config)
  c.model.dropout, c.data.augment.crop, c.data.augment.crop_padding = 0.1, 'pad', 1
  c.system.log_every, c.evaluate.every, c.system.save_every, c.system.steps_per_call = 3, 8, 5, steps_per_call
  c.update_from_flattened_dict(changes)
  return run_lib.prepare(run_config.cast(c))


def _train(run, folder, monkeypatch=None):
  """Trains to the end; returns the rows of the log and how many steps each call had."""
  counts = []
  if monkeypatch:
    operands = dispatch.Resident.operands
    monkeypatch.setattr(dispatch.Resident, 'operands',
                        lambda self, step, count: counts.append(count) or operands(self, step, count))
  loop.train(run, folder, Display(Console(file=io.StringIO())))
  return records.read_rows(folder / records.METRICS), counts[1:]  # the first gave the compiler the shapes


def test_several_steps_per_call_equal_one_step_per_call(tiny_config, tmp_path, monkeypatch):
  ours, counts = _train(_run(tiny_config), tmp_path / 'calls', monkeypatch)
  theirs, _ = _train(_run(tiny_config, 1), tmp_path / 'steps')
  assert counts == [3, 2, 1, 2, 1, 1, 2, 3, 1]  # ends at multiples of 3, 8 and 5, and at 16
  assert [(row['split'], row['step']) for row in ours] == [(row['split'], row['step']) for row in theirs]
  for name in ('loss', 'accuracy'):
    np.testing.assert_allclose([row[name] for row in ours], [row[name] for row in theirs], rtol=1e-4, err_msg=name)
  ours, theirs = (records.read_run(tmp_path / kind) for kind in ('calls', 'steps'))
  assert ours['config_hash'] == theirs['config_hash']


@pytest.mark.slow
def test_a_run_stopped_between_calls_ends_with_the_same_bits(tiny_config, tmp_path, monkeypatch):
  whole, _ = _train(_run(tiny_config), tmp_path / 'whole')
  for after in (3, 4):  # asked to stop between two calls
    asked = []
    with monkeypatch.context() as patch, pytest.raises(Stopped):
      patch.setattr(loop.Stop, 'stop_requested', lambda self, asked=asked, n=after: asked.append(1) or len(asked) > n)
      _train(_run(tiny_config), tmp_path / f'stopped{after}')
    _train(_run(tiny_config), tmp_path / f'stopped{after}')
    files = [(tmp_path / name / records.METRICS).read_bytes() for name in ('whole', f'stopped{after}')]
    assert files[0] == files[1]
    assert final_arrays(tmp_path / 'whole') == final_arrays(tmp_path / f'stopped{after}')


def test_metrics_that_are_not_finite_are_reported_with_their_step(tiny_config, tmp_path):
  errors = []
  for steps_per_call in (64, 1):
    with pytest.raises(UserError, match='at step') as error:
      _train(_run(tiny_config, steps_per_call, **{'optimizer.learning_rate': 1e19, 'system.log_every': 16,
                                                'evaluate.every': 16, 'system.save_every': 16}),
             tmp_path / str(steps_per_call))
    errors.append(str(error.value))
  assert errors[0] == errors[1]


@pytest.mark.slow
def test_several_steps_per_call_of_packed_runs(tiny_config, tmp_path):
  def train(name, steps_per_call):
    members = [packed.Member(_run(tiny_config, steps_per_call, seed=seed), tmp_path / f'{name}{seed}',
                             Display(Console(file=io.StringIO()))) for seed in range(2)]
    packed.train(members, goodput.Clock(1 / 2))
    return [row['loss'] for m in members for row in records.read_rows(m.workdir / records.METRICS)]
  np.testing.assert_allclose(train('calls', 0), train('steps', 1), rtol=1e-4)


def test_a_trunk_and_its_branches_are_one_program(tiny_config):
  def text(**changes):
    run = _run(tiny_config, **{'schedule.name': 'wsd'} | changes)
    return dispatch.Resident([run], 8).lower(state.abstract(run.model, run.config, run.mesh)).as_text()
  trunk = text(**{'schedule.cooldown_fraction': 0.0})
  assert trunk == text(**{'train.steps': 24, 'seed': 3, 'optimizer.learning_rate': 0.5})
  assert trunk != text(**{'schedule.warmup_steps': 3})


def test_one_step_per_call_if_pictures_are_not_on_the_devices(tiny_config, monkeypatch):
  assert dispatch.steps_per_call(_run(tiny_config)) == 64
  assert [dispatch.steps_per_call(_run(tiny_config, n)) for n in (1, 7, 100)] == [1, 7, 100]
  assert dispatch.steps_per_call(_run(tiny_config, **{'data.augment.randaugment_layers': 2})) == 1
  assert dispatch.steps_per_call(_run(tiny_config, **{'model.depth': 30, 'model.width': 1024})) == 1  # long steps
  monkeypatch.setattr(dispatch, '_MOST_BYTES', 1000)
  assert dispatch.steps_per_call(_run(tiny_config)) == 1
  with pytest.raises(UserError, match='system.steps_per_call=-1: must be from 0 to 1,024'):
    _run(tiny_config, -1)
