import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vit_jax import digest
from vit_jax.parallel import mesh as mesh_lib

SHAPE = (8, 12, 6)


def _random(dtype):
  bits = np.random.default_rng(0).integers(0, 256, (*SHAPE, jnp.dtype(dtype).itemsize), np.uint8)
  return (bits[..., 0] % 2 == 0) if dtype is bool else bits.view(dtype)[..., 0]


def _of(array):
  (number,) = digest.digests({'a': array}).values()
  return number


@pytest.mark.parametrize('dtype', [bool, np.int8, np.uint16, jnp.bfloat16, np.float32, np.uint32])
@pytest.mark.parametrize('shape', [SHAPE, (576,), ()])
def test_host_and_devices_give_the_same_digest(dtype, shape):
  array = _random(dtype).reshape(-1)[:1].reshape(()) if shape == () else _random(dtype).reshape(shape)
  across = jax.device_put(array, NamedSharding(mesh_lib.make_mesh(mesh_lib.MeshConfig(8)).mesh, PartitionSpec()))
  assert not digest._is_on_host(across) and digest._is_on_host(array) and digest._is_on_host(jnp.asarray(array))
  assert _of(array) == _of(across) == _of(jnp.asarray(array))


@pytest.mark.parametrize('dtype', [bool, np.int8, np.uint16, jnp.bfloat16, np.float32, np.uint32])
def test_digests_do_not_depend_on_sharding(dtype):
  array = _random(dtype)
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(2, 2, 2)).mesh
  specs = [PartitionSpec(), PartitionSpec('data', 'fsdp', 'tensor'), PartitionSpec(('data', 'tensor')),
           PartitionSpec(None, None, 'fsdp')]
  assert len({_of(jax.device_put(array, NamedSharding(mesh, spec))) for spec in specs}) == 1
  assert _of(jnp.asarray(array)) == _of(jax.device_put(array, NamedSharding(mesh, specs[1])))


def test_many_digests_do_not_block_each_others_threads():
  """Without waiting for each, on two cores, the process dies in half of the attempts."""
  places = NamedSharding(mesh_lib.make_mesh(mesh_lib.MeshConfig(2, 2, 2)).mesh, PartitionSpec('data', 'fsdp', 'tensor'))
  array = _random(np.float32)
  many = digest.digests({str(i): jax.device_put(array, places) for i in range(300)})
  assert len(many) == 300 and many['7'] == digest.digests({'7': array})['7']


def test_no_device_gathers_the_array():
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(2, 2, 2)).mesh
  everywhere = NamedSharding(mesh, PartitionSpec('data', 'fsdp', 'tensor'))
  split = jax.device_put(np.zeros((64, 64, 64), np.float32), everywhere)
  text = digest._sum.lower(split).compile().as_text()
  assert 'all-gather' not in text and 'all-to-all' not in text and 'f32[64,64,64]' not in text


@pytest.mark.parametrize('dtype', [np.int8, np.uint16, np.float32])
def test_every_flipped_bit_changes_the_digest(dtype):
  array = _random(dtype)
  right, rng = _of(jnp.asarray(array)), np.random.default_rng(1)
  for _ in range(40):
    changed = array.copy()
    flat = changed.reshape(-1).view(np.uint8)
    flat[rng.integers(flat.size)] ^= np.uint8(1 << rng.integers(8))
    assert _of(jnp.asarray(changed)) != right


def test_digests_depend_on_order_shape_name_and_type():
  array = np.arange(24, dtype=np.float32).reshape(4, 6)
  swapped = array[[1, 0, 2, 3]]
  made = [_of(jnp.asarray(a)) for a in (array, swapped, array.T, array.reshape(6, 4), array.view(np.int32))]
  assert len(set(made)) == len(made)
  renamed = digest.digests({'b': jnp.asarray(array)})
  assert renamed != {'b': made[0]}


def test_a_digest_is_the_sum_of_mixed_words():
  """The same arithmetic in Python integers."""
  array = _random(np.float32)[:2, :3]
  total = 0
  for position, word in enumerate(array.reshape(-1).view(np.uint32).tolist()):
    word ^= position * 0x9E3779B1 % 2**32
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
      word = (word ^ (word >> shift)) * factor % 2**32
    total += word
  assert int(digest._sum(jnp.asarray(array))) == total % 2**32


def test_an_empty_tree_has_no_digests():
  assert digest.digests({'params': {}}) == {}


def test_digests_of_scalars():
  values = [jnp.float32(0), jnp.float32(-0.0), jnp.int32(3), jnp.uint32(3)]
  assert all(_of(a) != _of(b) for a, b in itertools.combinations(values, 2))
