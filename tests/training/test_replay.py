"""Steps that are run twice: they change nothing, and find a device that computes wrongly before its update is kept."""

import copy
import io
import re

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from tests.bit_flips import at_random, flipped
from tests.command_line import final_arrays
from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel import rules
from vit_jax.training import config as run_config
from vit_jax.training import loop, packed, replay, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display
from vit_jax.training.program import Program


def _config(config, sizes, **changes):
  c = copy.deepcopy(config)
  c.model.dropout, c.optimizer.ema_decay, c.system.save_every = 0.1, 0.9, 5
  for axis, size in zip(rules.AXES, sizes):
    c.system.mesh[axis] = size
  c.update_from_flattened_dict(changes)
  return run_config.cast(c)


@pytest.fixture(name='prepare')
def _prepare(monkeypatch):
  """Prepares a run on the first devices, as many as its mesh has."""
  make = mesh_lib.make_mesh
  monkeypatch.setattr(run_lib.mesh_lib, 'make_mesh', lambda c: make(c, jax.devices()[:c.data * c.fsdp * c.tensor]))
  return run_lib.prepare


def _train(run, workdir):
  loop.train(run, workdir, Display(Console(file=io.StringIO())))
  return final_arrays(workdir), (workdir / records.METRICS).read_bytes()


@pytest.mark.parametrize('sizes', [(1, 1, 1), *(pytest.param(sizes, marks=pytest.mark.slow)
                                                for sizes in ((8, 1, 1), (2, 2, 2)))])
def test_the_end_is_that_of_a_run_without_replay(tiny_config, prepare, tmp_path, sizes):
  once, twice = (_train(prepare(_config(tiny_config, sizes, **{'system.replay_every': every})), tmp_path / str(every))
                 for every in (0, 3))
  assert once == twice


def test_a_flipped_bit_ends_the_run_and_nothing_of_its_step_is_kept(tiny_config, prepare, tmp_path, monkeypatch):
  run = prepare(_config(tiny_config, (2, 1, 1), **{'system.replay_every': 2}))
  at = [jnp.int32(value) for value in (0, 1, 7, 0)]
  bad = lambda step: [jnp.where(step == 7, at[0], -1), *at[1:]]  # the 8th step
  monkeypatch.setattr(loop.Loop, 'tampers', flipped(run.model, bad))
  name, device = replay.Inspect(run.model).names()[0], run.mesh.devices.flat[1]
  words = f'step 8 was run twice .* gradients of {re.escape(name)} \\(on {device}, .* is at step 5'
  with pytest.raises(UserError, match=words):
    _train(run, tmp_path)
  assert records.saved_steps(tmp_path)[-1] == 5


@pytest.mark.slow
@pytest.mark.parametrize('sizes, flips', [((8, 1, 1), 30), ((2, 2, 2), 20)])
def test_every_flip_is_found_and_nothing_else(tiny_config, prepare, sizes, flips):
  run = prepare(_config(tiny_config, sizes, **{'system.replay_every': 1, 'train.steps': flips}))
  train_state, found = state.create(run.model, run.config, run.mesh), 0
  names = replay.Inspect(run.model).names()
  fault, good = at_random(len(names), run.mesh.size), Program(run, train_state)
  bad = Program(run, train_state, flipped(run.model, fault))
  for step, batch in enumerate(run.train_batches(0, lambda errors: None), 1):
    leaf, device, *_ = map(int, fault(jnp.int32(step - 1)))
    where = f'.*{re.escape(names[leaf])}.* \\(on {run.mesh.devices.flat[device]}, as 3 more runs'
    with pytest.raises(UserError, match=f'step {step} was run twice {where}'):
      bad(train_state, step, (batch,))
    found += 1
    train_state, _ = good(train_state, step, (batch,))
  assert found == flips


@pytest.mark.parametrize('every, step, bounds', [(0, 5, ()), (1, 5, (5, 6)), (4, 5, (7, 8)), (4, 7, (7, 8)),
                                                 (4, 8, (11, 12))])
def test_a_step_that_is_run_twice_is_a_call_of_its_own(every, step, bounds):
  assert replay.bounds(step, every) == bounds
  assert not bounds or replay.replayed(bounds[1], every) and not (every > 1 and replay.replayed(bounds[0], every))


def test_a_run_with_replay_is_not_packed(tiny_config):
  assert packed.can_be_packed(_config(tiny_config, (1, 1, 1)))
  assert not packed.can_be_packed(_config(tiny_config, (1, 1, 1), **{'system.replay_every': 100}))
