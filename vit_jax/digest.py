"""Digests of arrays that do not depend on sharding: one number per array.

The bits of each element are mixed with its position into 32 bits, and these are added modulo 2^32. Addition is
commutative, so each device sums its own part, nothing is gathered, and every sharding gives the same number. At a given
position the mixing is a bijection of the element's 32 bits, so a single changed element always changes the sum. Other
damage is missed with probability 2^-32. Digests detect faults of disks, not deliberate changes.
"""

import math
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from vit_jax import host

_GOLDEN = 0x9E3779B1  # 2^32 / golden ratio, prime: spreads positions over the 32 bits (Knuth, vol. 3, sec. 6.4)


def digests(tree: Any) -> dict[str, int]:
  """{path in the tree: digest}, computed on the devices that hold the arrays.

  Args:
    tree: nested dicts of arrays of bool, integer or floating-point type.
  """
  leaves = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
  summed = lambda leaf: _sum_on_host(leaf) if _is_on_host(leaf) else host.in_turn(_sum(leaf))
  sums = jax.device_get({path: summed(leaf) for path, leaf in leaves.items()})
  names = {path: zlib.crc32(f'{path} {leaf.shape} {leaf.dtype}'.encode()) for path, leaf in leaves.items()}
  return {path: (int(sums[path]) + names[path]) % 2**32 for path in leaves}


def _is_on_host(leaf):
  """Whether the whole array is in host memory, so that NumPy can sum it without a copy or a compilation."""
  return not isinstance(leaf, jax.Array) or (
      leaf.is_fully_addressable and [device.platform for device in leaf.devices()] == ['cpu'])


def _sum_on_host(array: jax.Array | np.ndarray) -> np.uint32:
  """Like `_sum`, with NumPy."""
  array = np.ascontiguousarray(array)
  bits = array.reshape(-1).view({1: np.uint8, 2: np.uint16}.get(array.dtype.itemsize, np.uint32))
  position = np.arange(bits.size, dtype=np.uint64).astype(np.uint32)
  return np.sum(_mix(bits.astype(np.uint32) ^ (position * np.uint32(_GOLDEN))), dtype=np.uint32)


def per_device(arrays: Sequence[jax.Array], specs: Sequence[PartitionSpec]) -> jax.Array:
  """Digests of the part of each array that each device holds, uint32 [devices, arrays]; to be traced on a mesh.

  Devices that hold equal parts have equal digests.

  Args:
    arrays: the arrays.
    specs: how each is split over the mesh.
  """
  here = lambda *parts: jnp.stack([total(part) for part in parts])[None]
  axes = jax.sharding.get_abstract_mesh().axis_names
  return jax.shard_map(here, in_specs=tuple(specs), out_specs=PartitionSpec(axes))(*arrays)


def total(array: jax.Array) -> jax.Array:
  """The sum over an array's elements of their bits, each mixed with its position: the digest without its name."""
  words = _words(array)
  position = jnp.zeros(words.shape, jnp.uint32)  # in row-major order, modulo 2^32; a reshape would gather
  for axis in range(words.ndim):
    stride = math.prod(words.shape[axis + 1:]) % 2**32
    position += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride)
  return jnp.sum(_mix(words ^ (position * np.uint32(_GOLDEN))), dtype=jnp.uint32)


_sum = jax.jit(total)  # per shape and not for the whole tree, so that parameters, moments and averages share programs


def _words(array):
  """The bits of an array as uint32: one word per element, or two on a new last axis for 64-bit types."""
  if array.dtype == bool:
    return array.astype(jnp.uint32)
  size = array.dtype.itemsize
  if size >= 4:
    return jax.lax.bitcast_convert_type(array, jnp.uint32)
  return jax.lax.bitcast_convert_type(array, {1: jnp.uint8, 2: jnp.uint16}[size]).astype(jnp.uint32)


def _mix(words):
  """The finalizer of MurmurHash3, a bijection of 32 bits in which each input bit affects each output bit."""
  words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
  words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
  return words ^ (words >> 16)
