"""What must be true of a state before it is saved: its values are finite, and copies on several devices are equal."""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax import digest, host
from vit_jax.errors import UserError

CHECKED = ('params', 'stats', 'optimizer', 'ema')  # what of a state is checked
MOST_NAMED = 3  # arrays or devices in a message


def check_finite(tree: dict[str, Any], step: int) -> None:
  """Raises UserError if nested dicts of arrays, the state after `step`, are not finite; on all processes together."""
  if names := not_finite(tree):
    raise UserError(f'the parameters after step {step} are not finite ({listed(names)})')


def check_copies(tree: dict[str, Any], step: int) -> None:
  """Raises UserError if devices hold different copies of an array; on all processes together."""
  if wrong := differing_copies(tree):
    devices, names = wrong
    raise UserError(f'the copies of {listed(names)} after step {step} are not equal on all devices: {listed(devices)} '
                    'differ. The memory or the arithmetic of a device is faulty. Leave its machine out, or look at it, '
                    'before you start again')


def listed(names: Sequence[str]) -> str:
  """The first names and the number of the others."""
  more = len(names) - MOST_NAMED
  return ', '.join(names[:MOST_NAMED]) + (f' and {more} more' if more > 0 else '')


def not_finite(tree: dict[str, Any]) -> list[str]:
  """The paths of the floating-point arrays that hold an infinity or NaN."""
  leaves = {path: leaf for path, leaf in _named(tree).items() if jnp.issubdtype(leaf.dtype, jnp.floating)}
  on_host = lambda leaf: [device.platform for device in leaf.sharding.device_set] == ['cpu']
  if all(map(on_host, leaves.values())):  # NumPy needs neither a copy nor a compilation
    return [path for path, leaf in leaves.items() if not np.isfinite(np.asarray(leaf)).all()]
  finite = np.asarray(host.in_turn(_finite(list(leaves.values()))))
  return [path for path, ok in zip(leaves, finite, strict=True) if not ok]


@jax.jit
def _finite(leaves):
  return jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves])


def differing_copies(tree: dict[str, Any]) -> tuple[list[str], list[str]] | None:
  """(devices, paths of arrays) where devices that should hold the same values do not; None if all copies are equal.

  The devices exchange one integer each for each way in which arrays are split. They name the arrays only if an integer
  differs. Of three or more copies those that differ from most are named, of two both.
  """
  leaves = {path: leaf for path, leaf in _named(tree).items() if _copied(leaf)}
  if not leaves:
    return None
  mesh, arrays = next(iter(leaves.values())).sharding.mesh, list(leaves.values())
  specs = tuple(leaf.sharding.spec for leaf in arrays)
  ways = sorted({_axes(spec) for spec in specs})
  folded = np.asarray(host.in_turn(_digests(mesh, specs, True)(arrays)))
  if not any(_odd_ones(mesh, way, folded[:, i]) for i, way in enumerate(ways)):
    return None
  single = np.asarray(host.in_turn(_digests(mesh, specs, False)(arrays)))
  odd = {path: found for i, path in enumerate(leaves) if (found := _odd_ones(mesh, _axes(specs[i]), single[:, i]))}
  devices = sorted(set().union(*odd.values()))
  return [describe(mesh.devices.flat[i]) for i in devices], list(odd)


def per_device(tree: dict[str, Any]) -> np.ndarray:
  """Digests of what each device holds of each array, uint32 [devices, arrays], the same on all processes."""
  arrays = jax.tree.leaves(tree)
  specs = tuple(leaf.sharding.spec for leaf in arrays)
  return np.asarray(host.in_turn(_digests(arrays[0].sharding.mesh, specs, False)(arrays)))


def describe(device: jax.Device) -> str:
  """A device and the process that it belongs to."""
  return f'{device}' + (f' of process {device.process_index}' if jax.process_count() > 1 else '')


def _copied(leaf):
  """Whether several devices hold the same part of an array."""
  place = leaf.sharding
  return isinstance(place, NamedSharding) and any(
      size > 1 for axis, size in place.mesh.shape.items() if axis not in _axes(place.spec))


def _axes(spec):
  """The axes of the mesh that split an array, in alphabetical order."""
  return tuple(sorted(axis for entry in spec if entry for axis in (entry if isinstance(entry, tuple) else (entry,))))


@functools.lru_cache(maxsize=8)
def _digests(mesh: Mesh, specs: tuple[PartitionSpec, ...], folded: bool):
  """A program: arrays -> uint32 [devices, ways of splitting], or [devices, arrays] where they are not folded."""
  ways = sorted({_axes(spec) for spec in specs})

  def program(arrays):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      single = digest.per_device(arrays, specs)
    if not folded:
      return single
    columns = [[i for i, spec in enumerate(specs) if _axes(spec) == way] for way in ways]
    return jnp.stack([jax.vmap(digest.total)(single[:, np.array(group)]) for group in columns], axis=1)

  return jax.jit(program, out_shardings=NamedSharding(mesh, PartitionSpec()))


def _odd_ones(mesh, split, values):
  """The positions of devices whose value differs from that of most devices with the same part of an array."""
  parts = {}
  for i, place in enumerate(np.ndindex(*mesh.devices.shape)):
    part = tuple(p for axis, p in zip(mesh.axis_names, place) if axis in split)
    parts.setdefault(part, []).append(i)
  odd = set()
  for copies in parts.values():
    counts = Counter(int(values[i]) for i in copies)
    (most, times), *others = counts.most_common()
    if others:
      tie = others[0][1] == times
      odd |= {i for i in copies if tie or int(values[i]) != most}
  return odd


def _named(tree):
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
