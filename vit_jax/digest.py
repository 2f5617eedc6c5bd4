"""A digest of arrays that does not depend on how they are split over devices: a number for each array.

Each element's bits are mixed with its position into 32 bits, and these are added modulo 2^32. Addition knows no order,
so every device sums what it holds, nothing is gathered, and any sharding gives the same number. The mixing is a
bijection of the element's 32 bits at its place, so one changed element always changes the sum; other damage goes
unnoticed with a chance of 2^-32. It finds faults of disks, not forgeries.
"""

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import host

_GOLDEN = 0x9E3779B1  # 2^32 / golden ratio, prime: spreads positions over the 32 bits (Knuth, vol. 3, sec. 6.4)


def digests(tree: Any) -> dict[str, int]:
  """{path of the array in the tree: its digest}, computed where the arrays lie.

  Args:
    tree: nested dicts of arrays of bool, integers or floats.
  """
  leaves = {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
  summed = lambda leaf: _sum_on_host(leaf) if _is_here(leaf) else host.in_turn(_sum(leaf))
  sums = jax.device_get({path: summed(leaf) for path, leaf in leaves.items()})
  names = {path: zlib.crc32(f'{path} {leaf.shape} {leaf.dtype}'.encode()) for path, leaf in leaves.items()}
  return {path: (int(sums[path]) + names[path]) % 2**32 for path in leaves}


def _is_here(leaf):
  """Whether the host sees the whole array without a copy: numpy then sums it before a program is compiled."""
  return not isinstance(leaf, jax.Array) or (
      leaf.is_fully_addressable and [device.platform for device in leaf.devices()] == ['cpu'])


def _sum_on_host(array: jax.Array | np.ndarray) -> np.uint32:
  """As `_sum`, with numpy."""
  array = np.ascontiguousarray(array)
  bits = array.reshape(-1).view({1: np.uint8, 2: np.uint16}.get(array.dtype.itemsize, np.uint32))
  position = np.arange(bits.size, dtype=np.uint64).astype(np.uint32)
  return np.sum(_mix(bits.astype(np.uint32) ^ (position * np.uint32(_GOLDEN))), dtype=np.uint32)


@jax.jit  # once for each shape, not for the whole tree: parameters, moments and averages share their programs
def _sum(array: jax.Array) -> jax.Array:
  words = _words(array)
  position = jnp.zeros(words.shape, jnp.uint32)  # in row-major order, modulo 2^32; without a reshape, which gathers
  for axis in range(words.ndim):
    stride = math.prod(words.shape[axis + 1:]) % 2**32
    position += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * np.uint32(stride)
  return jnp.sum(_mix(words ^ (position * np.uint32(_GOLDEN))), dtype=jnp.uint32)


def _words(array):
  """The array's bits as uint32: smaller types one to a word, 64 bits as two words on a last axis."""
  if array.dtype == bool:
    return array.astype(jnp.uint32)
  size = array.dtype.itemsize
  if size >= 4:
    return jax.lax.bitcast_convert_type(array, jnp.uint32)
  return jax.lax.bitcast_convert_type(array, {1: jnp.uint8, 2: jnp.uint16}[size]).astype(jnp.uint32)


def _mix(words):
  """MurmurHash3's finaliser, a bijection of 32 bits in which every bit of the input reaches every bit of the output."""
  words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
  words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
  return words ^ (words >> 16)
