import contextlib
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import checkpoint, records
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.survival import fallback, local_tier
from vit_jax.survival.local_tier import LocalConfig, LocalTier


@pytest.fixture(name='mesh')
def _mesh():
  return mesh_lib.make_mesh(mesh_lib.MeshConfig(2, 2, 2))


@pytest.fixture(name='notes')
def _notes():
  return []


@pytest.fixture(name='tier')
def _tier(tmp_path, mesh, notes):
  """tier(...) opens the local tier of a run, with changes of its identity."""
  with contextlib.ExitStack() as stack:
    def tier(config_hash='abc', workdir=tmp_path / 'run', mesh=mesh, begins=False, **config):
      config = LocalConfig(str(tmp_path / 'local'), **{'local_every': 1, **config})
      return stack.enter_context(contextlib.closing(
          LocalTier(config, config_hash, workdir, mesh, 10, begins, notes.append)))
    yield tier


def _tree(mesh, value):
  kernel = jnp.arange(128.0).reshape(8, 16) + value
  return {'params': {'kernel': jax.device_put(kernel, mesh_lib.sharding(mesh, 'embed', 'mlp')),
                     'bias': jax.device_put(kernel[0].astype(jnp.bfloat16), mesh_lib.sharding(mesh, 'mlp'))},
          'stats': {}, 'key': jax.device_put(jnp.arange(2, dtype=jnp.uint32), mesh_lib.sharding(mesh))}


def _saved(tier, mesh, *steps):
  for step in steps:
    assert tier.due(step)
    tier.save(step, _tree(mesh, step), {'metrics_bytes': step})
    tier.checkpoints.wait()
  tier.close()


def test_sharded_arrays_come_back_and_only_the_newest_are_kept(tier, mesh, notes):
  _saved(tier(), mesh, 1, 2, 3)
  again = tier()
  assert again.steps == [2, 3] and again.checkpoints.record(3)['metrics_bytes'] == 3 and not notes
  like = checkpoint.abstract(_tree(mesh, 0))
  restored = again.checkpoints.restore(3, like)
  jax.tree.map(np.testing.assert_array_equal, restored, _tree(mesh, 3))
  assert checkpoint.abstract(restored) == like


def test_a_tier_is_found_by_its_own_run_alone(tier, mesh, tmp_path, notes):
  _saved(tier(), mesh, 1)
  assert not tier(config_hash='other').steps
  assert not tier(workdir=tmp_path / 'other').steps
  assert tier().steps == [1] and not notes
  assert not tier(begins=True).steps  # the run folder was deleted
  assert not tier().steps and not notes


def test_on_other_devices_it_is_ignored_with_a_note(tier, mesh, notes):
  _saved(tier(), mesh, 1)
  assert not tier(mesh=mesh_lib.make_mesh(mesh_lib.MeshConfig(8, 1, 1))).steps
  assert 'of other processes or devices are ignored' in notes.pop()
  assert not tier().steps and notes  # deleted: the run goes on elsewhere


def test_the_newest_good_checkpoint_of_both_places(tier, mesh, tmp_path):
  _saved(tier(), mesh, 2, 4)
  local = tier()
  like = checkpoint.abstract(_tree(mesh, 0))
  with contextlib.closing(checkpoint.Checkpoints(tmp_path / 'run')) as checkpoints:
    checkpoints.save(3, _tree(mesh, 3), {'metrics_bytes': 3})
    checkpoints.wait()
    found = lambda fault, noted: fallback.newest_good(
        checkpoints, lambda record: like, lambda step, record: fault.get(record['metrics_bytes']),
        lambda *words: noted.append(words), lambda step: '', local)
    assert found({}, [])[0] == 4
    noted = []
    step, tree, _ = found({4: 'lines were lost'}, noted)
    assert step == 3 and noted == [(4, 'lines were lost', '')]
    np.testing.assert_array_equal(tree['params']['kernel'], _tree(mesh, 3)['params']['kernel'])
  local.close()
  left = tier()
  assert left.steps == [2]  # the damaged one would be in the way of the run's own step 4


@pytest.mark.parametrize('name', ['arrays.npz', 'record.json'])
@pytest.mark.parametrize('damage', ['flipped', 'cut', 'missing'])
def test_damage_is_found(tier, mesh, tmp_path, name, damage):
  _saved(tier(), mesh, 1)
  path, = (tmp_path / 'local').glob(f'vit_jax-*/*/0-of-1/1/{name}')
  content = bytearray(path.read_bytes())
  content[len(content) // 3] ^= 4
  if damage == 'missing':
    path.unlink()
  else:
    path.write_bytes(content if damage == 'flipped' else content[:len(content) // 2])
  with pytest.raises(checkpoint.Damaged):
    tier().checkpoints.restore(1, checkpoint.abstract(_tree(mesh, 0)))


def test_an_array_that_was_changed_with_its_file_intact_is_found(tier, mesh, tmp_path):
  _saved(tier(), mesh, 1)
  path, = (tmp_path / 'local').glob('vit_jax-*/*/0-of-1/1/arrays.npz')
  with np.load(path) as file:
    arrays = dict(file)
  arrays['params/kernel/1'][0, 0] += 1e-6
  np.savez(path, **arrays)
  with pytest.raises(checkpoint.Damaged, match=r'1 of \d+ arrays differ from what was saved \(params/kernel/1\)'):
    tier().checkpoints.restore(1, checkpoint.abstract(_tree(mesh, 0)))


def test_a_folder_that_cannot_be_written_is_noted_and_the_run_goes_on(tmp_path, mesh, notes):
  (tmp_path / 'file').write_text('')
  tier = LocalTier(LocalConfig(str(tmp_path / 'file')), 'abc', tmp_path, mesh, 10, True, notes.append)
  note, = notes
  assert 'file cannot be used: ' in note and 'The run goes on without a local tier' in note
  assert not tier.due(1) and not tier.steps
  tier.remove()


def test_a_full_disk_is_noted_and_freed(tmp_path, mesh, notes):
  disk = tmp_path / 'disk'
  disk.mkdir()
  mount = ['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk]
  if subprocess.run(mount, capture_output=True, check=False).returncode:
    pytest.skip('cannot mount a tmpfs here')
  try:
    tier = LocalTier(LocalConfig(str(disk), local_every=1), 'abc', tmp_path, mesh, 10, True, notes.append)
    large = {'a': jax.device_put(np.random.default_rng(0).normal(size=(8, 2**17)), mesh_lib.sharding(mesh, 'embed'))}
    deadline, step = time.monotonic() + 60, 0
    while not notes and time.monotonic() < deadline:
      step += 1
      if tier.due(step):
        tier.save(step, large, {})
      time.sleep(0.01)
    note, = notes
    assert 'cannot be used: it is full' in note and not list(disk.iterdir())
  finally:
    subprocess.run(['umount', '-l', disk], check=True)


def test_by_steps_or_by_the_clock(tier, monkeypatch):
  now = [0.0]
  monkeypatch.setattr('time.monotonic', lambda: now[0])
  by_steps, by_clock = tier(local_every=3, local_seconds=0), tier(workdir='other', local_every=0, local_seconds=40)
  assert [step for step in range(1, 8) if by_steps.due(step) and not by_steps._saving.done()] == [3, 6]
  due = []
  for step in range(1, 8):
    now[0] += 10
    if by_clock.due(step):
      by_clock._saving.done()
      due.append(step)
  assert due == [2, 4, 6]


def test_nothing_is_left_of_a_finished_run(tier, mesh, tmp_path):
  _saved(tier(), mesh, 1)
  assert list((tmp_path / 'local').iterdir())
  tier().remove()
  assert not list((tmp_path / 'local').iterdir())


def test_a_bucket_is_refused():
  with pytest.raises(UserError, match=r'system.local_dir=gs://b: must be a folder on this machine'):
    local_tier.check(LocalConfig('gs://b'))


def test_off_by_default(tmp_path, mesh, notes):
  tier = LocalTier(LocalConfig(), 'abc', tmp_path, mesh, 10, True, notes.append)
  assert not tier.due(1) and not tier.steps and not records.saved_steps(tmp_path)
  tier.remove()
