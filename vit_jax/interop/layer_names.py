"""Flat views of parameter trees, with one name per parameter and block, as in other programs.

The trees stack the parameters of equal blocks on a leading axis: `encoder/blocks/norm1/scale` [L, D]. The flat view has
`encoder.blocks.0.norm1.scale` [D] and so on. Blocks are numbered consecutively within a stage, also if the first block
of a stage has another shape (ResNet) or blocks come in pairs (Swin).
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from flax import traverse_util


def flat_shapes(tree: dict) -> dict[str, tuple[int, ...]]:
  """{name: shape} of the parameters of single blocks, from a tree of arrays or ShapeDtypeStructs."""
  return {name: leaf.shape if index is None else leaf.shape[1:] for name, leaf, index in _leaves(tree)}


def flat(tree: dict) -> dict[str, np.ndarray]:
  """{name: array} of the parameters of single blocks, from a tree of arrays."""
  return {name: leaf if index is None else leaf[index] for name, leaf, index in _leaves(tree)}


def stacked(get: Callable[[str], np.ndarray], like: dict) -> dict:
  """The inverse of `flat`: a tree with the structure of `like` (of ShapeDtypeStructs), whose arrays `get` returns."""
  out = {}
  for path, leaf in traverse_util.flatten_dict(like).items():
    names = _names(path, leaf)
    out[path] = get(names) if isinstance(names, str) else np.stack([get(name) for name in names])
  return traverse_util.unflatten_dict(out)


def _leaves(tree) -> Iterator[tuple[str, Any, int | None]]:
  for path, leaf in traverse_util.flatten_dict(tree).items():
    names = _names(path, leaf)
    if isinstance(names, str):
      yield names, leaf, None
    else:
      yield from ((name, leaf, i) for i, name in enumerate(names))


def _names(path, leaf):
  """The name of the array at a path, or the names of its slices if it is stacked."""
  at = path.index('blocks') if 'blocks' in path else None
  if at is None or str(path[at + 1]).isdecimal():  # the ResNet of a hybrid numbers its blocks itself
    return '.'.join(map(str, path))
  before, after, number = path[:at], path[at + 1:], lambda i: i
  if after[0] == 'blocks':  # pairs of Swin
    before, after, number = before, after[2:], lambda i, second=after[1]: 2 * i + second
  elif before[-1] in ('first', 'rest'):  # stages of a ResNet
    before, number = before[:-1], lambda i, first=before[-1] == 'first': i if first else i + 1
  return ['.'.join(map(str, (*before, 'blocks', number(i), *after))) for i in range(leaf.shape[0])]
