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
