"""The .npz files of google-research/big_vision, under the names of the original code (`google`).

Files of training have params/ before each name and the optimizer's state beside them; those of two towers have img/ and
txt/; scanned models have one array for all blocks. Other numbers of the same modules come from another order in which
they were made.
"""

import re

import numpy as np

from vit_jax.interop.tensors import Tensors

_BLOCK = 'Transformer/encoderblock'
_INSIDE = (('MultiHeadDotProductAttention_0', 'MultiHeadDotProductAttention_1'), ('LayerNorm_1', 'LayerNorm_2'),
           ('MlpBlock_0', 'MlpBlock_3'))


def in_original_names(tensors: Tensors) -> Tensors:
  """The tensors of a ViT under the original names, one for each block; others keep their names."""
  found = {}  # original name: (name in the file, block in a scanned array or None)
  shapes = {}
  for name, shape in tensors.shapes.items():
    short = _without_prefixes(name, tensors.shapes)
    if short is None:
      continue
    for own, block in _names(short, shape):
      found[own] = name, block
      shapes[own] = shape if block is None else shape[1:]

  def load(name):
    whole, block = found[name]
    value = tensors.load(whole)
    return value if block is None else np.asarray(value)[block]
  return Tensors(tensors.source, shapes, tensors.others, load)


def _without_prefixes(name, names):
  """A name without params/ and img/; None for what is beside these: the optimizer's state, the text tower."""
  for prefix in ('params/', 'img/'):
    if any(other.removeprefix('params/').startswith(prefix) or other.startswith(prefix) for other in names):
      if not name.startswith(prefix):
        return None
      name = name.removeprefix(prefix)
  return name


def _names(name, shape):
  """[(original name, block or None)] of a name."""
  if name == 'pos_embedding':
    return [('Transformer/posembed_input/pos_embedding', None)]
  if name.startswith(f'{_BLOCK}/') and shape:  # scanned
    inside = _renamed(name.removeprefix(f'{_BLOCK}/'))
    return [(f'{_BLOCK}_{i}/{inside}', i) for i in range(shape[0])]
  if match := re.match(rf'({_BLOCK}_\d+/)(.*)', name):
    return [(match[1] + _renamed(match[2]), None)]
  return [(name, None)]


def _renamed(inside):
  for theirs, original in _INSIDE:
    if inside.startswith(f'{theirs}/'):
      return original + inside.removeprefix(theirs)
  return inside
