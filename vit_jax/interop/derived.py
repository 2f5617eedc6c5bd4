"""Tensors made of those of a file, where a parameter of ours is a part of one of theirs, or is none of theirs."""

from collections.abc import Callable, Collection, Mapping

import numpy as np

from vit_jax.interop.tensors import Tensors


def replaced(tensors: Tensors, new: Mapping[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]],
             gone: Collection[str] = ()) -> Tensors:
  """The tensors with others, {name: (shape, function that makes the values)}, and without those in `gone`."""
  shapes = {name: shape for name, shape in tensors.shapes.items() if name not in gone}
  load = lambda name: new[name][1]() if name in new else tensors.load(name)
  return Tensors(tensors.source, shapes | {name: shape for name, (shape, _) in new.items()}, tensors.others, load)


def renamed(tensors: Tensors, new_name: Callable[[str], str]) -> Tensors:
  """The tensors under other names."""
  back = {new_name(name): name for name in tensors.shapes}
  return Tensors(tensors.source, {new: tensors.shapes[old] for new, old in back.items()}, tensors.others,
                 lambda name: tensors.load(back[name]))


def with_key_biases(tensors: Tensors, query: str, key: str) -> Tensors:
  """The tensors with biases of 0 for the keys, of models that have biases for queries and values alone.

  Args:
    tensors: those of the file.
    query: what the names of the queries' biases end with.
    key: what those of the keys' would end with.
  """
  names = {name.removesuffix(query) + key: shape for name, shape in tensors.shapes.items() if name.endswith(query)}
  return replaced(tensors, {name: (shape, lambda shape=shape: np.zeros(shape, np.float32))
                            for name, shape in names.items() if name not in tensors.shapes})


def in_halves(tensors: Tensors, maps: Mapping[str, int], num_heads: int, swap: bool) -> Tensors:
  """The tensors with queries and keys as rotary positions want them here: channels i and i + K/2 turn together.

  Products of queries and keys do not depend on the order of their channels.

  Args:
    tensors: those of the file, in which channels 2i and 2i + 1 turn together.
    maps: {what the names of maps end with: 3 for queries, keys and values in one; 1 for queries or keys}. The first
      axis is (3 H K) or (H K).
    num_heads: H.
    swap: whether the first half of the pairs turns with the column, in place of the row.
  """
  def load(name, fused):
    value = np.array(tensors.load(name))
    parts = value.reshape(fused, num_heads, 2, -1, 2, *value.shape[1:])  # .., head, row or column, frequency, of a pair
    for part in parts[:2]:
      part[:] = np.moveaxis(part[:, ::-1] if swap else part, 3, 1).reshape(part.shape).copy()
    return parts.reshape(value.shape)
  found = {name: fused for name in tensors.shapes for end, fused in maps.items() if name.endswith(end)}
  return replaced(tensors, {name: (tensors.shapes[name], lambda name=name, fused=fused: load(name, fused))
                            for name, fused in found.items()})


def split(tensors: Tensors, prefix: str) -> Tensors:
  """The tensors with the fused queries, keys and values, whose names begin with the prefix, as NAME.q and NAME.kv.

  Attention pooling has two parameters of them: the queries are of another sequence than the keys and values.
  """
  new, gone = {}, set()
  for name, shape in tensors.shapes.items():
    if name.startswith(prefix) and shape[0] % 3 == 0:
      third = shape[0] // 3
      part = lambda rows, name=name: lambda: np.asarray(tensors.load(name))[rows]
      new[f'{name}.q'] = (third, *shape[1:]), part(slice(0, third))
      new[f'{name}.kv'] = (2 * third, *shape[1:]), part(slice(third, None))
      gone.add(name)
  return replaced(tensors, new, gone)
