"""The device mesh and where arrays lie on it.

Parameters carry logical axis names; one table maps them to the mesh's axes. Changing the mesh changes no model code.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vit_jax.errors import UserError
from vit_jax.options import option

AXES = ('data', 'fsdp', 'tensor')

# Logical axis -> mesh axis. Names that are not here are replicated.
RULES = {
    'batch': ('data', 'fsdp'),  # of activations
    'tokens': 'tensor',  # of the residual stream, between sub-blocks
    'embed': 'fsdp',  # of parameters
    'heads': 'tensor',  # of parameters, and of activations inside attention
    'mlp': 'tensor',  # of parameters, and of activations inside the MLP
}

# The usual meshes by name: which axis takes the devices.
PRESETS = {
    'dp': dict(data=-1, fsdp=1, tensor=1),
    'fsdp': dict(data=1, fsdp=-1, tensor=1),
    'tp': dict(data=1, fsdp=1, tensor=-1),
    'fsdp_tp': dict(data=1, fsdp=-1, tensor=2),
}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
  """Sizes of the mesh's axes; -1 (at most once) takes all devices that are left. Or a preset, which fills them in."""
  data: int = option(-1, least=-1, hint='-1: all devices that are left')  # replicas: batch split, parameters whole
  # Batch split, parameters and optimizer state split too.
  fsdp: int = option(1, least=-1, hint='-1: all devices that are left')
  # Heads, MLP columns and the residual stream's tokens split.
  tensor: int = option(1, least=-1, hint='-1: all devices that are left')
  preset: Literal['none', 'dp', 'fsdp', 'tp', 'fsdp_tp'] = 'none'  # fsdp_tp: tensor 2, or what `tensor` says


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh over the devices given, or all. Of several TPU slices, `data` spans the slices.

  Raises:
    UserError: sizes that are not positive, whose product is not the number of devices, or that do not fit the slices; a
      preset beside sizes.
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
  return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def single_device() -> Mesh:
  """A mesh of this process's first device."""
  return make_mesh(MeshConfig(data=1), jax.local_devices()[:1])


def mesh_sizes(config: MeshConfig, count: int, what: str) -> tuple[int, ...]:
  """The sizes along AXES with -1 filled in, for `count` devices, which the message calls `what`. Raises as above."""
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
  """Raises UserError where `data` does not span the slices: the network between them bears no other axis's traffic."""
  if sizes[0] % slices:
    raise UserError(f'system.mesh.data={sizes[0]}: must be a multiple of the {slices} slices, which it spans')


def abstract_mesh(sizes: Sequence[int]) -> AbstractMesh:
  """A mesh of these sizes along AXES without devices: shardings can be asked for the shape of a part."""
  return AbstractMesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _filled(config):
  """The config with its preset's sizes."""
  if config.preset == 'none':
    return config
  given = {axis: getattr(config, axis) for axis in AXES if getattr(config, axis) != getattr(MeshConfig, axis)}
  allowed = {'tensor'} if config.preset == 'fsdp_tp' else set()
  if set(given) - allowed:
    shown = ', '.join(f'{axis}={size}' for axis, size in given.items())
    raise UserError(f'system.mesh.preset={config.preset} sets the sizes itself: leave out {shown}, or the preset')
  return MeshConfig(**PRESETS[config.preset] | given)


def batch_shards(mesh: Mesh) -> int:
  """Into how many parts the batch is split."""
  return math.prod(mesh.shape[axis] for axis in RULES['batch'])


def sharding(mesh: Mesh, *logical: str | None) -> NamedSharding:
  """The sharding of an array with these logical axes (trailing dimensions that are not named are whole)."""
  return NamedSharding(mesh, spec(*logical))


def spec(*logical: str | None) -> PartitionSpec:
  """Logical axes as mesh axes."""
  return PartitionSpec(*(RULES.get(name) for name in logical))


def traced_on(mesh: Mesh, fn: Callable) -> Callable:
  """`fn`, to be jitted: while it is traced, `constrain` and the blocks of `parallel.blocks` see this mesh.

  Without it they do nothing, and a model runs as on one device.
  """
  @functools.wraps(fn)
  def traced(*args, **kwargs):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return fn(*args, **kwargs)
  return traced


def constrain(x: jax.Array, *logical: str | None) -> jax.Array:
  """x, laid out by its logical axes; x as it is where there is no mesh, and inside `shard_map`."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or mesh.manual_axes:
    return x
  return jax.lax.with_sharding_constraint(x, spec(*logical))


def platform() -> str:
  """Of the devices that the function being traced will run on: 'cpu', 'gpu' or 'tpu'."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device else jax.default_backend()


def gathered(x: jax.Array, logical: tuple[str | None, ...]) -> jax.Array:
  """A parameter as a product uses it: whole along what `fsdp` splits. Its gradient comes back split (reduce-scatter).

  Left to itself the TPU compiler multiplies by one part after the other as they come round (a collective matmul): for
  a ViT-B/16 on 16 chips four times the memory traffic.
  """
  return _gathered(x, logical) if by_compiler() else x


def by_rows(fn: Callable) -> Callable:
  """`fn(x, weights)`, where each device computes its rows of the batch x from whole weights, written as a `shard_map`.

  For what the compiler should not split itself. Of a convolution with groups it makes the kernel's gradient too large
  by the number of devices that hold the same rows (JAX 0.10.2), and it gathers the batch on the way.
  """
  rows = spec('batch')
  return jax.shard_map(fn, in_specs=(rows, PartitionSpec()), out_specs=rows) if by_compiler() else fn


def by_compiler() -> bool:
  """Whether the function being traced runs on a mesh of several devices, outside `shard_map`."""
  mesh = jax.sharding.get_abstract_mesh()
  return not mesh.empty and mesh.size > 1 and not mesh.manual_axes


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gathered(x, logical):
  return _whole(x, logical)


def _whole(x, logical):
  # Or else the compiler undoes before the gather what made the array small to send.
  return constrain(jax.lax.optimization_barrier(x), *(None if RULES.get(name) == 'fsdp' else name for name in logical))


_gathered.defvjp(lambda x, logical: (_whole(x, logical), None),
                 lambda logical, _, gradient: (constrain(gradient, *logical),))


def param_shardings(mesh: Mesh, shapes: dict, axes: dict) -> dict:
  """A NamedSharding for each parameter, from its logical axes.

  Raises:
    UserError: an axis of the mesh that does not divide its dimension (all of them are named), or a tensor axis that
      splits no parameter.
  """
  refused = set()

  def one(shape, names):
    for size, name in zip(shape.shape, names, strict=True):
      axis = RULES.get(name)
      if axis and size % mesh.shape[axis]:
        fits = math.gcd(size, mesh.shape[axis])
        refused.add(f'{axis}={mesh.shape[axis]} does not divide {name!r} of size {size} ({fits} does)')
    return sharding(mesh, *names)

  shardings = jax.tree.map(one, shapes, axes)
  named = {RULES.get(name) for names in jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, tuple)) for name in names}
  if mesh.shape['tensor'] > 1 and 'tensor' not in named:
    refused.add(f'tensor={mesh.shape["tensor"]} splits nothing of this model, which has neither heads nor MLPs (1 does '
                'no harm)')
  if refused:
    raise UserError('system.mesh: ' + '; '.join(sorted(refused)))
  return shardings
