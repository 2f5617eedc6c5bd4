"""The parts of a global array that this process's devices hold, each once, and the array again from them."""

import jax
import numpy as np


def split(array: jax.Array) -> dict[str, jax.Array]:
  """{number: part} of an array; of parts that several devices hold alike, the first."""
  shards = {shard.device: shard.data for shard in array.addressable_shards}
  return {str(i): shards[devices[0]] for i, devices in enumerate(_holders(array))}


def shapes(like: jax.ShapeDtypeStruct) -> dict[str, jax.ShapeDtypeStruct]:
  """The shapes and dtypes of what `split` gives; `like` has a sharding."""
  shape = like.sharding.shard_shape(like.shape)
  return {str(i): jax.ShapeDtypeStruct(shape, like.dtype) for i in range(len(_holders(like)))}


def join(like: jax.ShapeDtypeStruct, parts: dict[str, np.ndarray]) -> jax.Array:
  """The inverse of `split`, placed as `like`; every process gives its own parts."""
  placed = [jax.device_put(parts[str(i)], device) for i, devices in enumerate(_holders(like)) for device in devices]
  return jax.make_array_from_single_device_arrays(like.shape, like.sharding, placed)


def _holders(array):
  """The devices of this process by part: a list for each distinct index into the array."""
  holders = {}
  for device, index in array.sharding.addressable_devices_indices_map(array.shape).items():
    key = tuple(part.indices(size)[:2] for part, size in zip(index, array.shape))
    holders.setdefault(key, []).append(device)
  return list(holders.values())
