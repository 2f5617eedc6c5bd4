import jax
import pytest
from jax.sharding import PartitionSpec as P

from vit_jax.errors import UserError
from vit_jax.parallel.mesh import MeshConfig, batch_shards, make_mesh, param_shardings, sharding


def test_minus_one_takes_what_is_left():
  assert dict(make_mesh(MeshConfig(fsdp=2, tensor=2)).shape) == {'data': 2, 'fsdp': 2, 'tensor': 2}
  assert batch_shards(make_mesh(MeshConfig(data=2, fsdp=-1, tensor=2))) == 4


def test_presets_fill_in_the_devices_at_hand():
  sizes = lambda **config: tuple(make_mesh(MeshConfig(**config)).shape.values())
  assert [sizes(preset=name) for name in ('dp', 'fsdp', 'tp', 'fsdp_tp')] == [
      (8, 1, 1), (1, 8, 1), (1, 1, 8), (1, 4, 2)]
  assert sizes(preset='fsdp_tp', tensor=4) == (1, 2, 4)
  assert sizes() == (8, 1, 1)
  with pytest.raises(UserError, match=r'preset=tp sets the sizes itself: leave out fsdp=2, or the preset'):
    make_mesh(MeshConfig(fsdp=2, preset='tp'))


@pytest.mark.parametrize('sizes', [(3, 1, 1), (16, 1, 1), (0, 1, 1), (-1, -1, 1), (-1, 3, 1), (-1, 16, 1), (-2, 1, 1)])
def test_sizes_that_do_not_fit_are_refused(sizes):
  with pytest.raises(UserError, match=rf'system\.mesh \(data={sizes[0]}, fsdp={sizes[1]}'):
    make_mesh(MeshConfig(*sizes))


def test_logical_axes_become_mesh_axes():
  mesh = make_mesh(MeshConfig(2, 2, 2))
  assert sharding(mesh, 'layers', 'embed', None, 'heads', None).spec == P(None, 'fsdp', None, 'tensor', None)
  assert sharding(mesh, 'batch').spec == P(('data', 'fsdp'))


def test_a_dimension_that_does_not_divide_is_named():
  shapes = {'a': jax.ShapeDtypeStruct((6, 32), 'float32'), 'b': jax.ShapeDtypeStruct((16, 5), 'float32')}
  both = r"fsdp=4 does not divide 'embed' of size 6 \(2 does\); tensor=2 does not divide 'heads' of size 5 \(1 does\)"
  with pytest.raises(UserError, match=both):
    param_shardings(make_mesh(MeshConfig(1, 4, 2)), shapes, {'a': ('embed', 'mlp'), 'b': ('embed', 'heads')})
