import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import checkpoint
from vit_jax.parallel import mesh as mesh_lib


def _tree(value):
  return {'params': {'a': {'kernel': jnp.full((8, 16), value)}}, 'stats': {},
          'optimizer': {'0': {}, '1': {'count': jnp.int32(3)}}, 'step': jnp.int32(value)}


def _mesh(data, fsdp, tensor):
  return mesh_lib.make_mesh(mesh_lib.MeshConfig(data, fsdp, tensor))


def test_the_last_ones_and_the_best_are_kept(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path, keep_last=2)
  for step, metric in ((1, 0.5), (2, 0.1), (3, 0.3), (4, None), (5, 0.4)):
    checkpoints.save(step, _tree(float(step)), {'metrics_bytes': 10 * step}, metric)
    checkpoints.wait()
  checkpoints.close()
  again = checkpoint.Checkpoints(tmp_path)
  kept = sorted(int(p.name) for p in (tmp_path / 'checkpoints').iterdir() if p.name.isdigit())
  assert kept == [2, 4, 5] and again.latest() == 5
  assert again.record(2) == {'metrics_bytes': 20}
  restored = again.restore(2, checkpoint.abstract(_tree(0.0)))
  jax.tree.map(np.testing.assert_array_equal, restored, _tree(2.0))


def test_restores_onto_another_mesh(tmp_path):
  tree = {'kernel': jax.device_put(jnp.arange(128.0).reshape(8, 16), mesh_lib.sharding(_mesh(2, 4, 1), 'embed', 'mlp'))}
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, tree, {})
  checkpoints.wait()
  there = mesh_lib.sharding(_mesh(1, 2, 4), 'embed', 'mlp')
  restored = checkpoints.restore(1, {'kernel': jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=there)})
  assert restored['kernel'].sharding == there
  np.testing.assert_array_equal(restored['kernel'], tree['kernel'])


def test_a_killed_save_leaves_the_one_before(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(1, _tree(1.0), {})
  checkpoints.close()
  (tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp').mkdir()
  again = checkpoint.Checkpoints(tmp_path)
  assert again.latest() == 1
  again.save(3, _tree(3.0), {})  # orbax clears up in the background, and waits for that before it saves
  again.wait()
  assert {p.name for p in (tmp_path / 'checkpoints').iterdir()} == {'1', '3'}
