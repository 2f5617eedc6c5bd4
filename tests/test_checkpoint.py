import contextlib
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import checkpoint
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.survival import fallback


def _tree(value):
  return {'params': {'a': {'kernel': jnp.full((8, 16), value)}}, 'stats': {},
          'optimizer': {'0': {}, '1': {'count': jnp.int32(3)}}, 'step': jnp.int32(value)}


def _mesh(data, fsdp, tensor):
  return mesh_lib.make_mesh(mesh_lib.MeshConfig(data, fsdp, tensor))


def _save(checkpoints, *steps):
  for step in steps:
    checkpoints.save(step, _tree(float(step)), {'metrics_bytes': 10 * step})
    checkpoints.wait()


def _steps(tmp_path):
  return sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir() if p.name.isdigit())


def test_the_latest_and_the_best_are_kept(tmp_path):
  penalties = {1: 0.5, 2: 0.1, 3: 0.3, 5: 0.4}
  checkpoints = checkpoint.Checkpoints(tmp_path, keep_last=2, penalty=penalties.get)
  _save(checkpoints, 1, 2, 3, 4, 5)
  checkpoints.close()
  again = checkpoint.Checkpoints(tmp_path)
  assert _steps(tmp_path) == [2, 4, 5] and again.latest() == 5
  assert again.record(2)['metrics_bytes'] == 20
  restored = again.restore(2, checkpoint.abstract(_tree(0.0)))
  jax.tree.map(np.testing.assert_array_equal, restored, _tree(2.0))


def test_multiples_of_keep_every_and_pinned_ones_are_kept(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, keep_last=1, keep_every=4, pinned=[3])
  _save(checkpoints, *range(1, 10))
  checkpoints.close()
  assert _steps(tmp_path) == [3, 4, 8, 9]


def test_restore_onto_another_mesh(tmp_path):
  tree = {'kernel': jax.device_put(jnp.arange(128.0).reshape(8, 16), mesh_lib.sharding(_mesh(2, 4, 1), 'embed', 'mlp'))}
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, tree, {})
  checkpoints.wait()
  there = mesh_lib.sharding(_mesh(1, 2, 4), 'embed', 'mlp')
  restored = checkpoints.restore(1, {'kernel': jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=there)})
  assert restored['kernel'].sharding == there
  np.testing.assert_array_equal(restored['kernel'], tree['kernel'])


def test_a_killed_save_leaves_the_previous_checkpoint(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, _tree(1.0), {})
  checkpoints.close()
  (tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp').mkdir()
  again = checkpoint.Checkpoints(tmp_path)
  assert again.latest() == 1
  again.save(3, _tree(3.0), {})  # Orbax cleans up in the background, and waits for that before it saves
  again.wait()
  assert {p.name for p in (tmp_path / 'checkpoints').iterdir()} == {'1', '3'}


@pytest.fixture(name='two', scope='module')
def _two(tmp_path_factory):
  """A folder with two checkpoints, which tests copy."""
  folder = tmp_path_factory.mktemp('two')
  with contextlib.closing(checkpoint.Checkpoints(folder)) as checkpoints:
    _save(checkpoints, 1, 2)
  return folder


def _newest(folder):
  """The result of `newest_good`, and a message for each step that was damaged."""
  with contextlib.closing(checkpoint.Checkpoints(folder)) as checkpoints:
    noted = []
    found = fallback.newest_good(checkpoints, lambda record: checkpoint.abstract(_tree(0.0)), lambda step, record: None,
                                 lambda *words: noted.append(words), str)
    return found, noted, checkpoints.steps()


def _files(folder):
  return sorted(p.relative_to(folder) for p in (folder / 'checkpoints' / '2').rglob('*') if p.is_file())


def _check(folder, two):
  """Checks that the latest checkpoint is intact, or that the previous one is used and the damaged one is renamed."""
  damaged = {path.relative_to(folder / 'checkpoints' / '2'): path.read_bytes()
             for path in (folder / 'checkpoints' / '2').rglob('*') if path.is_file()}
  (step, tree, record), noted, left = _newest(folder)
  jax.tree.map(np.testing.assert_array_equal, tree, _tree(float(step)))
  assert record['metrics_bytes'] == 10 * step
  if step == 2:
    assert not noted and left == [1, 2]
    return False
  assert [words[0] for words in noted] == [2] and left == [1] and noted[0][1]
  aside = folder / 'checkpoints' / 'damaged-2'
  assert noted[0][2] == str(aside)
  assert {p.relative_to(aside): p.read_bytes() for p in aside.rglob('*') if p.is_file()} == damaged
  return True


def test_a_truncated_or_missing_file_falls_back(two, tmp_path):
  caught = {}
  for i, file in enumerate(_files(two)):
    for change in ('half', 'missing'):
      folder = tmp_path / f'{i}-{change}'
      shutil.copytree(two, folder)
      if change == 'half':
        os.truncate(folder / file, (folder / file).stat().st_size // 2)
      else:
        (folder / file).unlink()
      caught[str(file), change] = _check(folder, two)
  assert sum(caught.values()) > 6


def test_a_flipped_bit_is_detected_or_harmless(two, tmp_path):
  rng, files = np.random.default_rng(0), _files(two)
  sizes = np.array([(two / file).stat().st_size for file in files], float)
  caught = 0
  for i in range(20):
    folder = tmp_path / str(i)
    shutil.copytree(two, folder)
    path = folder / files[rng.choice(len(files), p=sizes / sizes.sum())]
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    caught += _check(folder, two)
  assert caught


def test_one_damaged_checkpoint_is_set_aside_but_several_are_not(two, tmp_path):
  for name, steps in (('one', ['2']), ('both', ['1', '2'])):
    shutil.copytree(two, tmp_path / name)
    for step in steps:
      shutil.rmtree(tmp_path / name / 'checkpoints' / step / 'record')
  shutil.rmtree(tmp_path / 'one' / 'checkpoints' / '1')
  found, noted, left = _newest(tmp_path / 'one')
  assert found is None and noted[0][0] == 2 and left == []
  with pytest.raises(UserError, match='none of the 2 checkpoints can be used. step 2: .*; step 1: '):
    _newest(tmp_path / 'both')
  assert _steps(tmp_path / 'both') == [1, 2]


def test_an_older_checkpoint_without_digests_is_restored(two, tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoint.digest, 'digests', lambda tree: None)
  monkeypatch.setattr(checkpoint, 'sealed', lambda record: {'metrics_bytes': record['metrics_bytes']})
  with contextlib.closing(checkpoint.Checkpoints(tmp_path)) as checkpoints:
    _save(checkpoints, 2)
    monkeypatch.undo()
    assert checkpoints.record(2) == {'metrics_bytes': 20}
    checkpoints.restore(2, checkpoint.abstract(_tree(0.0)))
