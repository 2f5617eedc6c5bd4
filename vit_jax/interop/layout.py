"""Another program's form of a model: which tensors it must have, and our trees from them and back."""

import dataclasses
import fnmatch
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from vit_jax.errors import UserError
from vit_jax.interop import layer_names
from vit_jax.interop import rules as rules_lib
from vit_jax.interop.rules import Rule
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel

_HEADS = ('head', 'distillation_head')
_OF_TRAINING = ('dtype', 'dropout', 'drop_path')  # fields that change nothing in evaluation, in float32


def read(tensors: Tensors, weights: Weights, num_classes: int | None, rules: Sequence[Rule] | None,
         without: Iterable[str] = ()) -> Weights:
  """`weights`, filled with the tensors of a file, each of which is used or named.

  Args:
    tensors: the file.
    weights: all but params and stats: what the model is.
    num_classes: of the head; None for a backbone without one.
    rules: the table of names; None: they are ours.
    without: patterns (`fnmatch`) of their names. Tensors that they match may be there and unused; or, outside of
      blocks, missing or of another shape: our parameter is then left out.

  Raises:
    UserError: tensors that are missing, unused or of another shape; or values that are not finite.
  """
  _check_size(tensors, weights)
  model = _model(weights, num_classes, tensors.source)
  trees = [{key: tree for key, tree in part.items() if num_classes or key not in _HEADS}
           for part in (model.param_shapes(), model.stats_shapes())]
  shapes = layer_names.flat_shapes(trees[0]) | layer_names.flat_shapes(trees[1])
  bound = rules_lib.bind(rules_lib.own_names(shapes) if rules is None else rules, shapes)
  left_out = _check_names(tensors, bound, _known(weights), tuple(without))
  for name in left_out:
    if 'blocks' in name.split('.'):
      raise UserError(f'{tensors.source}: {name} is a part of a block, which cannot be left out')
    trees = [_without(tree, name.split('.')) for tree in trees]
  flat = rules_lib.read([b for b in bound if not left_out & set(b.ours)], tensors.__getitem__, _known(weights))
  params, stats = (layer_names.stacked(flat.__getitem__, tree) for tree in trees)
  return dataclasses.replace(weights, params=params, stats=stats)


def write(weights: Weights, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
  """{name of theirs: float32 array} of all parameters and statistics, and PyTorch's counters of batches."""
  flat = layer_names.flat(weights.params) | layer_names.flat(weights.stats)
  bound = rules_lib.bind(rules, {name: array.shape for name, array in flat.items()})
  out = rules_lib.write(bound, flat, _known(weights))
  counters = [name.replace('running_mean', 'num_batches_tracked') for name in out if name.endswith('.running_mean')]
  return out | {name: np.zeros((), np.int64) for name in counters}  # which PyTorch misses, and uses for nothing here


def check_told(weights: Weights, told: Collection[str], program: str) -> None:
  """Raises UserError where a field of the config is not at its default and not among those that are told."""
  default = type(weights.config)()
  for field in dataclasses.fields(weights.config):
    value, right = getattr(weights.config, field.name), getattr(default, field.name)
    if value != right and field.name not in told and field.name not in _OF_TRAINING:
      raise UserError(f'{weights.source}: model.{field.name}={value!r} cannot be told to {program}, whose '
                      f'{weights.family} has {right!r}; try --to=bundle')


def num_classes(tensors: Tensors, name: str) -> int | None:
  """The outputs of the classifier of that name; None where there is none."""
  shape = tensors.shapes.get(f'{name}.weight')
  return shape[0] if shape else None


def _model(weights, num_classes, source):
  try:
    return PureModel(weights.family, weights.config, weights.image_shape, num_classes or 1)
  except UserError as error:
    raise UserError(f'{source}: {error}') from error
  except (TypeError, ValueError, OverflowError, ArithmeticError) as error:
    raise UserError(f'{source}: its config describes no {weights.family} that can be built ({error})') from error


def _known(weights):
  patch = getattr(weights.config, 'patch_size', 1)
  return {'P': patch, 'Q': patch, 'C': weights.preprocessing.channels}


def _check_size(tensors, weights):
  """Before shapes are worked out: no more blocks than the file has tensors, no more numbers than it could hold."""
  config = weights.config
  blocks = sum(config.depths if hasattr(config, 'depths') else [config.depth])
  if blocks > len(tensors.shapes):
    raise UserError(f'{tensors.source}: its config speaks of {blocks:,} blocks, and the file has '
                    f'{len(tensors.shapes)} tensors')


def _check_names(tensors, bound, known, without):
  """The names of ours that are left out. Raises UserError for what is not accounted for."""
  expected = rules_lib.expected(bound, known)
  named = lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in without)
  missing = [name for name in expected if name not in tensors.shapes]
  unused = [name for name in tensors.shapes if name not in expected]
  other = [name for name in expected if name in tensors.shapes and tensors.shapes[name] != expected[name]]
  said = []
  if names := [name for name in missing if not named(name)]:
    said.append(_listed('missing', names))
  if names := [name for name in unused if not named(name)]:
    said.append(_listed('not used by this model', names))
  if names := [name for name in other if not named(name)]:
    said.append(_listed('of another shape', [f'{name} {list(tensors.shapes[name])} where the model has '
                                             f'{list(expected[name])}' for name in names]))
  if said:
    found = len(expected) - len(missing)
    hint = '' if 2 * found > len(expected) else '; is it another architecture?'
    raise UserError(f'{tensors.source}: {"; ".join(said)}{hint}')
  gone = {name for name in missing + other if named(name)}
  return {ours for b in bound if gone & set(b.theirs) for ours in b.ours}


def _listed(what, names, most=12):
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return f'{len(names)} tensor{"s" * (len(names) > 1)} {what}: {", ".join(names[:most])}{more}'


def _without(tree, path):
  """The nested dict without what lies at a path (of strings, where its keys may be numbers)."""
  out = {key: _without(value, path[1:]) if str(key) == path[0] and len(path) > 1 else value
         for key, value in tree.items() if len(path) > 1 or str(key) != path[0]}
  return {key: value for key, value in out.items() if value != {}}
