"""The device mesh and where arrays lie on it.

Parameters carry logical axis names; one table maps them to the mesh's axes. Changing the mesh changes no model code.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vit_jax.errors import UserError

AXES = ('data', 'fsdp', 'tensor')

# Logical axis -> mesh axis. Names that are not here are replicated.
RULES = {
    'batch': ('data', 'fsdp'),
    'embed': 'fsdp',
    'heads': 'tensor',
    'mlp': 'tensor',
}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Sizes of the mesh's axes; -1 (at most once) takes all devices that are left."""
  data: int = -1  # replicas: batch split, parameters whole
  fsdp: int = 1  # batch split, parameters and optimizer state split too
  tensor: int = 1  # heads and MLP columns split


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh over the devices given, or all.

  Raises:
    UserError: sizes that are not positive, or whose product is not the number of devices.
  """
  devices = devices or jax.devices()
  sizes, count = [getattr(config, axis) for axis in AXES], len(devices)
  shown = ', '.join(f'{axis}={size}' for axis, size in zip(AXES, sizes))
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise UserError(f'system.mesh ({shown}): sizes are at least 1, and one of them may be -1 (what is left)')
  if -1 in sizes:
    sizes[sizes.index(-1)] = max(count // -math.prod(sizes), 1)
  if math.prod(sizes) != count:
    raise UserError(f'system.mesh ({shown}): its sizes must multiply to the {count} '
                    f'{jax.default_backend()} device(s) that are here, not {math.prod(sizes)}')
  return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def batch_shards(mesh: Mesh) -> int:
  """Into how many parts the batch is split."""
  return math.prod(mesh.shape[axis] for axis in RULES['batch'])


def sharding(mesh: Mesh, *logical: str | None) -> NamedSharding:
  """The sharding of an array with these logical axes (trailing dimensions that are not named are whole)."""
  return NamedSharding(mesh, PartitionSpec(*(RULES.get(name) for name in logical)))


def param_shardings(mesh: Mesh, shapes: dict, axes: dict) -> dict:
  """A NamedSharding for each parameter, from its logical axes.

  Raises:
    UserError: an axis of the mesh that does not divide its dimension; all of them are named.
  """
  refused = set()

  def one(shape, names):
    for size, name in zip(shape.shape, names, strict=True):
      axis = RULES.get(name)
      if axis and size % mesh.shape[axis]:
        refused.add(f'{axis}={mesh.shape[axis]} does not divide {name!r} of size {size}')
    return sharding(mesh, *names)

  shardings = jax.tree.map(one, shapes, axes)
  if refused:
    raise UserError('system.mesh: ' + '; '.join(sorted(refused)))
  return shardings
