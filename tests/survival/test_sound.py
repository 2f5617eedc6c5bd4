"""A state that is not finite, or whose copies differ, is found before it is saved."""

import dataclasses
import io
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.survival import sound
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

MESH = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)).mesh


def _placed(*spec, fault=None, shape=(8, 6)):
  """An array split by `spec`, of which one device, if any, has one bit flipped."""
  values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  place, parts = NamedSharding(MESH, PartitionSpec(*spec)), []
  for device, index in place.addressable_devices_indices_map(shape).items():
    part = values[index].copy()
    if device == fault:
      part.view(np.uint32).flat[3] ^= 1
    parts.append(jax.device_put(part, device))
  return jax.make_array_from_single_device_arrays(shape, place, parts)


@pytest.mark.parametrize('devices', [1, 8])
def test_arrays_that_are_not_finite_are_named(devices):
  place = lambda array: jax.device_put(array, jax.devices()[0]) if devices == 1 else jax.device_put(
      array, NamedSharding(MESH, PartitionSpec('fsdp')))
  tree = {'a': place(jnp.ones(4)), 'b': {'c': place(jnp.array([1, math.inf, 1, 1])), 'n': place(jnp.arange(4))}}
  assert sound.not_finite(tree) == ['b/c']
  with pytest.raises(UserError, match=r'the parameters after step 7 are not finite \(b/c\)'):
    sound.check_finite(tree, 7)


def test_equal_copies_are_no_fault():
  tree = {'whole': _placed(), 'split': _placed('fsdp', 'tensor'), 'both': _placed(('data', 'fsdp', 'tensor'))}
  assert sound.differing_copies(tree) is None
  assert sound.differing_copies({'alone': jax.device_put(np.ones(3), jax.devices()[0])}) is None


@pytest.mark.parametrize('number', range(8))
def test_of_many_copies_the_one_that_differs_is_named(number):
  bad = MESH.devices.flat[number]
  tree = {'whole': _placed(fault=bad), 'half': _placed('fsdp'), 'split': _placed('fsdp', 'tensor')}
  assert sound.differing_copies(tree) == ([str(bad)], ['whole'])


def test_of_two_copies_both_are_named():
  bad = MESH.devices[1, 0, 1]
  tree = {'whole': _placed(), 'split': _placed('fsdp', 'tensor', fault=bad)}
  assert sound.differing_copies(tree) == ([str(MESH.devices[0, 0, 1]), str(bad)], ['split'])
  with pytest.raises(UserError, match='the copies of split after step 3 are not equal on all devices'):
    sound.check_copies(tree, 3)


def _train(config, workdir):
  config.system.mesh.data = config.system.mesh.fsdp = 1
  config.system.mesh.tensor = 8
  run = run_lib.prepare(run_config.cast(config))
  rates = dataclasses.replace(run.config.optimizer, learning_rate=1e38, weight_decay=1e3)  # the check refuses them
  run = dataclasses.replace(run, config=dataclasses.replace(run.config, optimizer=rates))
  return loop.train(run, workdir, Display(Console(file=io.StringIO())))


@pytest.fixture(name='too_far')
def _too_far(tiny_config):
  """A run whose loss is finite in the first step, and whose parameters are not after it: rate times decay overflows."""
  tiny_config.schedule.name, tiny_config.schedule.warmup_steps, tiny_config.system.save_every = 'constant', 0, 1
  return tiny_config


def test_parameters_that_are_not_finite_are_not_saved(too_far, tmp_path):
  with pytest.raises(UserError, match=r'^the parameters after step 1 are not finite \(params/.*\); no checkpoint has '
                                      'been saved yet. A lower optimizer.learning_rate'):
    _train(too_far, tmp_path)
  assert records.saved_steps(tmp_path) == []


@pytest.mark.slow
def test_where_steps_are_skipped_so_is_an_update_that_is_not_finite(too_far, tmp_path):
  too_far.train.on_nonfinite, too_far.train.most_skipped = 'skip', 15
  with pytest.raises(UserError, match='the update of the parameters is not finite at step 16, and the 15 steps before'):
    _train(too_far, tmp_path / 'ends')
  too_far.train.most_skipped = 16
  _train(too_far, tmp_path / 'goes on')
  rows = [row for row in records.read_rows(tmp_path / 'goes on' / records.METRICS) if row['split'] == 'train']
  assert [row['skipped'] for row in rows] == [2] * 8
