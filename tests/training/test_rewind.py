"""A batch that makes the loss jump is skipped or left out, whenever the run is stopped, and however it is run."""

import copy
import io
import math

import jax
import numpy as np
import pytest
from rich.console import Console

from tests.command_line import final_arrays
from vit_jax import checkpoint, records
from vit_jax.data import order
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.survival import health
from vit_jax.survival.stop import Stopped
from vit_jax.training import config as run_config
from vit_jax.training import loop, packed, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

POISONED, STEPS = 33, 36  # less than an epoch of digits, so a batch has pictures of its own


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
  """Jumps are looked for early in a short run, whose loss falls all the time; meshes are of the first devices."""
  for name, value in {'FIRST': 20, 'DEVIATIONS': 1.0, 'OVER': 5, 'LEAST': math.log(1.9)}.items():
    monkeypatch.setattr(health, name, value)
  make = mesh_lib.make_mesh
  monkeypatch.setattr(run_lib.mesh_lib, 'make_mesh', lambda c: make(c, jax.devices()[:c.data * c.fsdp * c.tensor]))


@pytest.fixture(name='config')
def _config(tiny_config):
  c = tiny_config
  c.train.steps, c.train.on_spike, c.model.dropout, c.optimizer.ema_decay = STEPS, 'rewind', 0.1, 0.9
  c.schedule.name, c.schedule.warmup_steps = 'constant', 0
  c.evaluate.every, c.system.log_every, c.system.save_every = 12, 4, 8
  c.system.mesh.data = 1
  return c


def _run(config, poisoned=(POISONED,), **changes):
  """A run, in whose data the pictures of some batches are inverted and have other labels."""
  c = copy.deepcopy(config)
  c.update_from_flattened_dict(changes)
  run = run_lib.prepare(run_config.cast(c))
  arrays = jax.tree.map(np.copy, run.data.arrays('train'))
  for number in poisoned:
    rows = run.data.train_order(run.config.seed)(number - 1)
    arrays['image'][rows], arrays['label'][rows] = 255 - arrays['image'][rows], (arrays['label'][rows] + 5) % 10
  run.data._arrays = {key: arrays for key in run.data._arrays if key[0] == 'train'}
  return run


def _train(run, workdir):
  loop.train(run, workdir, Display(Console(file=io.StringIO())))
  return _end(workdir)


def _end(workdir):
  return final_arrays(workdir), (workdir / records.METRICS).read_bytes()


def _events(workdir, kind):
  return [row for row in records.read_rows(workdir / records.EVENTS) if row['event'] == kind]


@pytest.fixture(name='without')
def _without(config, tmp_path):
  """The end of a run that never had the batch."""
  return _train(_run(config, (), **{'train.leave_out': (POISONED,)}), tmp_path / 'without')


@pytest.mark.parametrize('changes', [
    {}, *(pytest.param(changes, marks=pytest.mark.slow) for changes in (
        {'system.save_every': 99, 'system.steps_per_call': 1}, {'system.mesh.data': 2}))])
def test_the_end_is_that_of_a_run_that_never_had_the_batch(config, tmp_path, changes):
  theirs = _train(_run(config, (), **changes, **{'train.leave_out': (POISONED,)}), tmp_path / 'without')
  assert _train(_run(config, **changes), tmp_path / 'rewound') == theirs
  rewind, = _events(tmp_path / 'rewound', 'rewind')
  assert (rewind['step'], rewind['batch'], rewind['left_out']) == (POISONED, POISONED, [POISONED])
  assert rewind['to'] == 0 if 'system.save_every' in changes else 0 < rewind['to'] < POISONED
  assert records.read_run(tmp_path / 'rewound')['left_out'] == [POISONED]
  assert _train(_run(config, (), **changes), tmp_path / 'clean') != theirs


def test_stopped_while_it_goes_back_it_ends_the_same(config, tmp_path, monkeypatch, without):
  back = loop.Loop._go_back
  with monkeypatch.context() as patch:
    def stopped(*args):
      back(*args)
      raise KeyboardInterrupt
    patch.setattr(loop.Loop, '_go_back', stopped)
    with pytest.raises(KeyboardInterrupt):
      _train(_run(config), tmp_path / 'ours')
  assert records.read_run(tmp_path / 'ours')['left_out'] == [POISONED]
  assert _train(_run(config), tmp_path / 'ours') == without
  assert len(_events(tmp_path / 'ours', 'rewind')) == 2  # it met the batch again


def test_stopped_after_the_next_save_it_does_not_meet_the_batch_again(config, tmp_path, monkeypatch, without):
  folder = tmp_path / 'ours'
  with monkeypatch.context() as patch:
    patch.setattr(loop.Stop, 'stop_requested', lambda self: folder.exists() and bool(_events(folder, 'rewind')))
    with pytest.raises(Stopped):
      _train(_run(config), folder)
  assert records.saved_steps(folder)[-1] > _events(folder, 'rewind')[0]['to']  # its record has what is left out
  assert _train(_run(config), folder) == without and len(_events(folder, 'rewind')) == 1
  assert records.read_run(folder)['left_out'] == [POISONED]


@pytest.mark.slow
def test_batches_one_after_another_are_left_out_up_to_a_limit(config, tmp_path):
  poisoned = (33, 34, 36)
  theirs = _train(_run(config, (), **{'train.leave_out': poisoned}), tmp_path / 'without')
  assert _train(_run(config, poisoned, **{'train.most_rewinds': 3}), tmp_path / 'ours') == theirs
  with pytest.raises(UserError, match=r'step 34: .* jumps .*2 batches have been left out .*train.most_rewinds'):
    _train(_run(config, poisoned, **{'train.most_rewinds': 2}), tmp_path / 'few')


def test_a_skipped_step_is_counted_in_the_state(config, tmp_path, monkeypatch):
  skip = {'train.on_spike': 'skip'}
  whole = _train(_run(config, **skip), tmp_path / 'whole')
  event, = _events(tmp_path / 'whole', 'spike')
  assert (event['step'], event['what'], event['in_a_row']) == (POISONED, 'loss', 1)
  with monkeypatch.context() as patch:
    folder = tmp_path / 'ours'
    patch.setattr(loop.Stop, 'stop_requested', lambda self: folder.exists() and bool(_events(folder, 'spike')))
    with pytest.raises(Stopped):
      _train(_run(config, **skip), folder)
  assert _train(_run(config, **skip), folder) == whole
  rows = [row for row in records.read_rows(folder / records.METRICS) if row['split'] == 'train']
  assert {row['step']: row['skipped'] for row in rows if row['skipped']} == {36: 1}


@pytest.mark.slow
def test_resumed_with_other_rows_the_count_of_skipped_steps_stays(config, tmp_path, monkeypatch):
  folder, skip = tmp_path / 'ours', {'train.on_spike': 'skip'}
  with monkeypatch.context() as patch:
    patch.setattr(loop.Stop, 'stop_requested', lambda self: folder.exists() and bool(_events(folder, 'spike')))
    with pytest.raises(Stopped):
      _train(_run(config, **skip, **{'system.log_every': 5}), folder)
  _train(_run(config, **skip, **{'system.log_every': 7}), folder)
  rows = [row for row in records.read_rows(folder / records.METRICS) if row['split'] == 'train']
  assert sum(row['skipped'] for row in rows) == 1


@pytest.mark.slow
def test_an_older_checkpoint_without_the_counters_is_resumed(config, tmp_path, monkeypatch):
  run, older = _run(config, (), **{'train.on_spike': 'note', 'train.on_nonfinite': 'skip'}), state.to_plain
  with monkeypatch.context() as patch:
    of_guard = ('skipped', 'in_a_row', 'usual')
    counters = lambda s: older(s) | {'metrics': {n: v for n, v in s.metrics.items() if n not in of_guard}}
    patch.setattr(state, 'to_plain', counters)
    patch.setattr(loop.Stop, 'stop_requested', lambda self: bool(_events(tmp_path, 'train')))
    with pytest.raises(Stopped):
      _train(run, tmp_path)
  step = records.saved_steps(tmp_path)[-1]
  assert 'metrics/skipped' not in checkpoint.Checkpoints(tmp_path, read_only=True).record(step)['arrays']
  _train(run, tmp_path)
  assert _events(tmp_path, 'resume')[0]['step'] == step and not _events(tmp_path, 'damaged')


@pytest.mark.slow
def test_a_branch_leaves_out_what_its_trunk_left_out(config, tmp_path):
  config.schedule.name, config.schedule.cooldown_fraction, config.evaluate.every = 'wsd', 0.05, STEPS
  run = _run(config)
  theirs = _train(run, tmp_path / 'alone')
  trunk = run_lib.prepare_trunk(run.config, (34,), lambda _: run.data)
  loop.train(trunk, tmp_path / 'trunk', Display(Console(file=io.StringIO())))
  loop.train(run, tmp_path / 'branch', Display(Console(file=io.StringIO())), trunk=tmp_path / 'trunk')
  assert records.read_run(tmp_path / 'branch')['left_out'] == [POISONED]
  arrays = final_arrays(tmp_path / 'branch')
  assert arrays == theirs[0]


def test_batches_that_are_left_out_are_those_of_the_whole_order():
  whole = order.TrainOrder(50, 8, 3)
  kept = [step for step in range(40) if step + 1 not in (1, 2, 7, 20)]
  some = order.LeftOut(whole, (20, 1, 7, 2, 7))
  assert [order.batch_of(step, (20, 1, 7, 2, 7)) for step in range(len(kept))] == kept
  np.testing.assert_array_equal([some(step) for step in range(len(kept))], [whole(step) for step in kept])


def test_packed_runs_skip_but_do_not_go_back(config):
  assert not packed.can_be_packed(_run(config).config)
  assert packed.can_be_packed(_run(config, **{'train.on_spike': 'skip'}).config)
