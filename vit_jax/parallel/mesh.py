"""The device mesh and the placement of arrays on it, by the rules of `parallel.rules`."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vit_jax.errors import UserError
from vit_jax.options import option
from vit_jax.parallel import rules as rules_lib
from vit_jax.parallel.rules import AXES, Rules, mesh_axes, spec

# The usual meshes by name: which axis takes the devices.
PRESETS = {
    'dp': dict(data=-1, fsdp=1, tensor=1),
    'fsdp': dict(data=1, fsdp=-1, tensor=1),
    'tp': dict(data=1, fsdp=1, tensor=-1),
    'fsdp_tp': dict(data=1, fsdp=-1, tensor=2),
}


# Part of JAX's cache keys, like the rules.
_absent = jax.make_user_context(None)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Sizes of the mesh's axes; -1 (at most once) takes all devices that are left. Or a preset, which fills them in."""
  data: int = option(-1, least=-1, hint='-1: all devices that are left')  # replicas: batch split, parameters whole
  # Batch split, parameters and optimizer state split too.
  fsdp: int = option(1, least=-1, hint='-1: all devices that are left')
  # Heads, MLP columns and the residual stream's tokens split.
  tensor: int = option(1, least=-1, hint='-1: all devices that are left')
  preset: Literal['none', 'dp', 'fsdp', 'tp', 'fsdp_tp'] = 'none'  # fsdp_tp: tensor 2, or what `tensor` says
  # (logical axis, mesh axis) pairs, the whole table: a logical axis that is not in it is on every device as a whole.
  rules: tuple[tuple[str, str], ...] = rules_lib.DEFAULT


@dataclasses.dataclass(frozen=True)
class LogicalMesh:
  """A mesh and the rules by which arrays are split over it."""
  mesh: Mesh | AbstractMesh
  rules: Rules = rules_lib.DEFAULT

  def __post_init__(self):
    rules_lib.check_axes(self.rules)

  @property
  def shape(self) -> Mapping[str, int]:
    """The sizes of the mesh's axes by name."""
    return self.mesh.shape

  @property
  def size(self) -> int:
    """The number of devices."""
    return self.mesh.size

  @property
  def devices(self) -> np.ndarray:
    """The devices along AXES. An abstract mesh has none."""
    return self.mesh.devices


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> LogicalMesh:
  """A mesh over the devices given, or all. Of several TPU slices, `data` spans the slices.

  Raises:
    UserError: sizes that are not positive, whose product is not the number of devices, or that do not fit the slices; a
      preset beside sizes; a rule for an axis that the mesh does not have.
  """
  devices = devices or jax.devices()
  sizes = mesh_sizes(config, len(devices), f'{jax.default_backend()} device(s) that are here')
  slices = len({getattr(device, 'slice_index', 0) if device.platform == 'tpu' else 0 for device in devices})
  # As `jax.make_mesh`, but that refuses 2 x 32 on a torus of 4 x 4 x 4, though one of its axes can be split.
  if slices == 1:
    placed = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  else:
    check_slices(sizes, slices)
    within = (sizes[0] // slices, *sizes[1:])
    placed = mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices, allow_split_physical_axes=True)
  return LogicalMesh(Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES)), config.rules)


def single_device() -> LogicalMesh:
  """A mesh of this process's first device."""
  return make_mesh(MeshConfig(data=1), jax.local_devices()[:1])


def mesh_sizes(config: MeshConfig, count: int, what: str) -> tuple[int, ...]:
  """The sizes along AXES with -1 filled in, for `count` devices, which the message calls `what`. Raises as above."""
  rules_lib.check_axes(config.rules)
  config = _filled(config)
  sizes = [getattr(config, axis) for axis in AXES]
  shown = ', '.join(f'{axis}={size}' for axis, size in zip(AXES, sizes))
  if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
    raise UserError(f'system.mesh ({shown}): sizes are at least 1, and one of them may be -1 (what is left)')
  if -1 in sizes:
    sizes[sizes.index(-1)] = max(count // -math.prod(sizes), 1)
  if math.prod(sizes) != count:
    raise UserError(f'system.mesh ({shown}): its sizes must multiply to the {count} {what}, not {math.prod(sizes)}')
  return tuple(sizes)


def check_slices(sizes: Sequence[int], slices: int) -> None:
  """Raises UserError where `data` does not span the slices: their network carries the traffic of no other axis."""
  if sizes[0] % slices:
    raise UserError(f'system.mesh.data={sizes[0]}: must be a multiple of the {slices} slices, which it spans')


def abstract_mesh(sizes: Sequence[int], rules: Rules = rules_lib.DEFAULT) -> LogicalMesh:
  """A mesh of these sizes along AXES without devices: shardings can be asked for the shape of a part."""
  return LogicalMesh(AbstractMesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES)), rules)


def _filled(config):
  """The config with its preset's sizes."""
  if config.preset == 'none':
    return config
  given = {axis: getattr(config, axis) for axis in AXES if getattr(config, axis) != getattr(MeshConfig, axis)}
  allowed = {'tensor'} if config.preset == 'fsdp_tp' else set()
  if set(given) - allowed:
    shown = ', '.join(f'{axis}={size}' for axis, size in given.items())
    raise UserError(f'system.mesh.preset={config.preset} sets the sizes itself: leave out {shown}, or the preset')
  return MeshConfig(**PRESETS[config.preset] | given, rules=config.rules)


def batch_shards(mesh: LogicalMesh) -> int:
  """The number of parts that the batch is split into."""
  return math.prod(mesh.shape[axis] for axis in mesh_axes('batch', mesh.rules))


def sharding(mesh: LogicalMesh, *logical: str | None) -> NamedSharding:
  """The sharding of an array with these logical axes (trailing dimensions that are not named are whole)."""
  return NamedSharding(mesh.mesh, spec(*logical, rules=mesh.rules))


def traced_on(mesh: LogicalMesh, fn: Callable) -> Callable:
  """`fn`, to be jitted: while it is traced, `constrain` and `parallel.blocks` see this mesh and its rules.

  Without it they do nothing, and a model runs as on one device.
  """
  @functools.wraps(fn)
  def traced(*args, **kwargs):
    with jax.sharding.use_abstract_mesh(mesh.mesh.abstract_mesh), rules_lib.tracing(mesh.rules):
      return fn(*args, **kwargs)
  return traced


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
  """x, split by its logical axes; x as it is where there is no mesh, and inside `shard_map`."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.manual_axes:
    return x
  return jax.lax.with_sharding_constraint(x, spec(*logical))


def platform() -> str:
  """Of the devices that the function being traced will run on: 'cpu', 'gpu' or 'tpu'."""
  if absent := _absent.value:
    return absent
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()


def is_absent() -> bool:
  """Whether what is being traced is for devices that are not here (`tracing_for`)."""
  return _absent.value is not None


def tracing_for(absent: str | None) -> contextlib.AbstractContextManager:
  """Within it, what is traced is for devices of a platform that is not here; it cannot be run."""
  return _absent(absent)


def by_rows(fn: Callable) -> Callable:
  """`fn(x, weights)`, where each device computes its rows of the batch x from whole weights, written as a `shard_map`.

  For what the compiler should not split itself. Of a convolution with groups it makes the kernel's gradient too large
  by the number of devices that hold the same rows (JAX 0.10.2), and it gathers the batch on the way.
  """
  rows = spec('batch')
  return jax.shard_map(fn, in_specs=(rows, PartitionSpec()), out_specs=rows) if by_compiler() else fn


def split_parts(name: str | None) -> int:
  """The number of parts that the mesh of the function being traced splits a logical axis into; 1 without a mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in mesh_axes(name))


def by_compiler() -> bool:
  """Whether the function being traced runs on a mesh of several devices, outside `shard_map`."""
  mesh = jax.sharding.get_abstract_mesh()
  return not mesh.empty and mesh.size > 1 and not mesh.manual_axes


def param_shardings(mesh: LogicalMesh, shapes: dict, axes: dict) -> dict:
  """A NamedSharding for each parameter, from its logical axes.

  Raises:
    UserError: a rule for a logical axis that does not exist; two logical axes of one parameter on one mesh axis; a mesh
      axis that does not divide its dimension (all of them are named); or a tensor axis that splits no parameter.
  """
  declared = {name for names in jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple)) for name in names}
  rules_lib.check_names(mesh.rules, declared)
  collide, refused = [], set()

  def one(keys, shape, names):
    if found := rules_lib.collisions('/'.join(str(key.key) for key in keys), names, mesh.rules):
      collide.extend(found)
      return None
    for size, name in zip(shape.shape, names, strict=True):
      split = mesh_axes(name, mesh.rules)
      parts = math.prod(mesh.shape[axis] for axis in split)
      if size % parts:
        fits = math.gcd(size, parts)
        refused.add(f'{" x ".join(split)}={parts} does not divide {name!r} of size {size} ({fits} does)')
    return sharding(mesh, *names)

  shardings = jax.tree_util.tree_map_with_path(one, shapes, axes)
  if collide:
    raise UserError(f'system.mesh.rules: {collide[0]}' + (f' ({len(collide) - 1} more)' if collide[1:] else ''))
  if mesh.shape['tensor'] > 1 and not any('tensor' in mesh_axes(name, mesh.rules) for name in declared):
    refused.add(f'tensor={mesh.shape["tensor"]} splits nothing of this model, none of whose axes the rules split over '
                'it (1 does no harm)')
  if refused:
    raise UserError('system.mesh: ' + '; '.join(sorted(refused)))
  return shardings
