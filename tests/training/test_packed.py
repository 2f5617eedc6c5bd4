"""Runs that are trained together equal the same runs trained alone, up to rounding."""

import copy
import io
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from tests.command_line import final_arrays
from vit_jax import goodput, records
from vit_jax.errors import UserError
from vit_jax.survival.stop import Stopped
from vit_jax.training import config as run_config
from vit_jax.training import loop, packed, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display
from vit_jax.training.step import trace

HPARAMS = [dict(seed=0, rate=1e-2, decay=0.0), dict(seed=1, rate=3e-3, decay=0.1), dict(seed=0, rate=3e-3, decay=0.1)]


def _run(config, seed=0, rate=1e-2, decay=0.0, steps=20):
  c = copy.deepcopy(config)
  c.seed, c.optimizer.learning_rate, c.optimizer.weight_decay = seed, rate, decay
  c.model.dropout, c.data.augment.crop, c.data.augment.crop_padding = 0.1, 'pad', 1
  c.train.steps, c.system.log_every, c.evaluate.every, c.system.save_every = steps, 1, 10, 5
  c.system.mesh.data = 1
  return run_lib.prepare(run_config.cast(c))


def _alone(config, folder, **hparams):
  loop.train(_run(config, **hparams), folder, _display())
  return records.read_rows(folder / records.METRICS)


def _display():
  return Display(Console(file=io.StringIO()))


def _members(config, tmp_path, hparams=HPARAMS, **more):
  return [packed.Member(_run(config, **h, **more), tmp_path / f'packed{i}', _display()) for i, h in enumerate(hparams)]


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
  monkeypatch.setattr(run_lib.mesh_lib, 'make_mesh', lambda config, make=run_lib.mesh_lib.make_mesh: make(
      config, jax.devices()[:1]))


def _same(ours, theirs):
  assert [row['step'] for row in ours] == [row['step'] for row in theirs]
  for name in ('loss', 'grad_norm', 'learning_rate'):
    a, b = ([row[name] for row in rows if row['split'] == 'train' or name == 'loss'] for rows in (ours, theirs))
    np.testing.assert_allclose(a, b, rtol=1e-5, err_msg=name)


def test_each_run_equals_the_run_trained_alone(tiny_config, tmp_path):
  members = _members(tiny_config, tmp_path)
  packed.train(members, goodput.Clock(1 / len(members)))
  for i, hparams in enumerate(HPARAMS):
    _same(records.read_rows(tmp_path / f'packed{i}' / records.METRICS),
          _alone(tiny_config, tmp_path / f'alone{i}', **hparams))
    ours, theirs = (records.read_run(tmp_path / f'{kind}{i}') for kind in ('packed', 'alone'))
    assert ours['config_hash'] == theirs['config_hash'] and ours['status'] == 'finished'
    assert ours['results']['test']['loss'] == pytest.approx(theirs['results']['test']['loss'], rel=1e-4)
    ours, theirs = (final_arrays(tmp_path / f'{kind}{i}') for kind in ('packed', 'alone'))
    assert {name: len(a) for name, a in ours.items()} == {name: len(a) for name, a in theirs.items()}


def test_gradients_equal_those_of_each_run_alone(tiny_config):
  """Compares every leaf by Adam's first moment after a step, with a head that does not hide the backbone."""
  runs = [_run(tiny_config, **hparams) for hparams in HPARAMS]
  states, batches, alone = [], [], []
  for run in runs:
    train_state = state.create(run.model, run.config, run.mesh)
    head = {'kernel': 0.3 * jax.random.normal(jax.random.key(7), (16, 10)), 'bias': train_state.params['head']['bias']}
    states.append(train_state._replace(params=train_state.params | {'head': head}))
    batches.append(next(run.train_batches(0, lambda errors: None)))
    step = trace(run.model, run.config, run.steps, run.mesh).lower().compile()
    alone.append(step(jax.tree.map(jax.numpy.copy, states[-1]), batches[-1])[0].optimizer[1].mu)
  together, _ = packed._together(runs[0])(packed._stack(states), batches)
  for i, moments in enumerate(alone):
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(moments), jax.tree.leaves(together.optimizer[1].mu)):
      assert np.abs(a).max() > 0
      np.testing.assert_allclose(a, b[i], atol=1e-6, rtol=0, err_msg=jax.tree_util.keystr(path))


def _bytes(folder):
  """The bytes of the log and of every array of the final checkpoint."""
  return (folder / records.METRICS).read_bytes(), final_arrays(folder)


@pytest.mark.slow
def test_stopped_runs_resume_in_the_same_bits_together_and_up_to_rounding_alone(tiny_config, tmp_path, monkeypatch):
  packed.train(_members(tiny_config, tmp_path / 'undisturbed'), goodput.Clock())
  members = _members(tiny_config, tmp_path)
  with monkeypatch.context() as patch, pytest.raises(Stopped):
    patch.setattr(packed.Stop, 'stop_requested', lambda self: members[0].loop.folder.metrics.size > 1200)
    packed.train(members, goodput.Clock())
  stopped_at = {records.saved_steps(m.workdir)[-1] for m in members}
  assert len(stopped_at) == 1 and 0 < stopped_at.pop() < 20
  for i in range(3):
    shutil.copytree(tmp_path / f'packed{i}', tmp_path / 'again' / f'packed{i}')
  packed.train(_members(tiny_config, tmp_path / 'again'), goodput.Clock())  # the same group
  for i in range(3):
    assert _bytes(tmp_path / 'again' / f'packed{i}') == _bytes(tmp_path / 'undisturbed' / f'packed{i}')
  _alone(tiny_config, members[2].workdir, **HPARAMS[2])  # a finished run does not affect the others
  packed.train(_members(tiny_config, tmp_path), goodput.Clock())
  for i, hparams in enumerate(HPARAMS):
    _same(records.read_rows(tmp_path / f'packed{i}' / records.METRICS),
          _alone(tiny_config, tmp_path / f'alone{i}', **hparams))


@pytest.mark.slow
def test_a_run_that_diverges_is_dropped(tiny_config, tmp_path):
  hparams = [HPARAMS[0], dict(seed=0, rate=1e19, decay=0.0)]
  members = _members(tiny_config, tmp_path, hparams)
  packed.train(members, goodput.Clock())
  assert members[0].failed is None and 'is inf' in members[1].failed
  assert records.read_run(members[0].workdir)['status'] == 'finished'
  assert 'results' not in records.read_run(members[1].workdir)
  _same(records.read_rows(members[0].workdir / records.METRICS), _alone(tiny_config, tmp_path / 'alone', **HPARAMS[0]))


def test_training_ends_if_all_runs_diverge(tiny_config, tmp_path):
  members = _members(tiny_config, tmp_path, [dict(seed=seed, rate=1e19, decay=0.0) for seed in range(2)])
  packed.train(members, goodput.Clock())
  assert all('is inf' in m.failed for m in members)
  assert max(row['step'] for row in records.read_rows(members[0].workdir / records.METRICS)) < 10


def test_a_run_of_another_program_is_refused(tiny_config, tmp_path):
  members = _members(tiny_config, tmp_path)
  members[1].run = _run(tiny_config, steps=21)
  with pytest.raises(UserError, match='packed1: cannot be trained together with .*packed0'):
    packed.train(members, goodput.Clock())
