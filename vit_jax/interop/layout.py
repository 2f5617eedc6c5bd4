"""Conversion between another program's tensors and this project's parameter trees, with checks of names and shapes."""

import dataclasses
import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from vit_jax.errors import UserError
from vit_jax.interop import layer_names
from vit_jax.interop import rules as rules_lib
from vit_jax.interop.rules import Rule
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel

_HEADS = ('head', 'distillation_head')
_TRAINING_ONLY = ('dtype', 'dropout', 'drop_path')  # fields without an effect on float32 evaluation


def read(tensors: Tensors, weights: Weights, num_classes: int | None, rules: Sequence[Rule] | None,
         without: Iterable[str] = ()) -> Weights:
  """Fills `weights` with the tensors of a file. Every tensor is either used or named in an error.

  Args:
    tensors: the tensors of the file.
    weights: the model, without params and stats.
    num_classes: the number of classes of the head; None for a backbone without a head.
    rules: the table of names; None if the file uses this project's names.
    without: patterns (`fnmatch`) of names in the file. Matching tensors may be unused. Outside of blocks they may also
      be missing or have another shape; the parameter is then left out.

  Raises:
    UserError: tensors are missing, unused or of another shape, or values are not finite.
  """
  _check_size(tensors, weights)
  model = _model(weights, num_classes, tensors.source)
  trees = [{key: tree for key, tree in part.items() if num_classes or key not in _HEADS}
           for part in (model.param_shapes(), model.stats_shapes())]
  shapes = layer_names.flat_shapes(trees[0]) | layer_names.flat_shapes(trees[1])
  bound = rules_lib.bind(rules_lib.own_names(shapes) if rules is None else rules, shapes)
  left_out = check_names(tensors, bound, _known(weights), tuple(without))
  for name in left_out:
    if 'blocks' in name.split('.'):
      raise UserError(f'{tensors.source}: {name} is part of a block and cannot be left out')
    trees = [_without(tree, name.split('.')) for tree in trees]
  flat = rules_lib.read([b for b in bound if not left_out & set(b.ours)], tensors.__getitem__, _known(weights))
  params, stats = (layer_names.stacked(flat.__getitem__, tree) for tree in trees)
  return dataclasses.replace(weights, params=params, stats=stats)


def write(weights: Weights, rules: Sequence[Rule]) -> dict[str, np.ndarray]:
  """{their name: float32 array} of all parameters and statistics, and the batch counters of PyTorch."""
  flat = layer_names.flat(weights.params) | layer_names.flat(weights.stats)
  bound = rules_lib.bind(rules, {name: array.shape for name, array in flat.items()})
  out = rules_lib.write(bound, flat, _known(weights))
  counters = [name.replace('running_mean', 'num_batches_tracked') for name in out if name.endswith('.running_mean')]
  return out | {name: np.zeros((), np.int64) for name in counters}  # PyTorch expects them, but does not use them


def check_representable(weights: Weights, fields: Collection[str], program: str) -> None:
  """Raises UserError if the config differs from its default in a field that the other program's format lacks.

  Args:
    weights: the model.
    fields: the names of the fields that the format can represent.
    program: the name of the program, for the message.
  """
  default = type(weights.config)()
  for field in dataclasses.fields(weights.config):
    value, right = getattr(weights.config, field.name), getattr(default, field.name)
    if value != right and field.name not in fields and field.name not in _TRAINING_ONLY:
      raise UserError(f'{weights.source}: model.{field.name}: {program} expects {right!r} in a {weights.family}, got '
                      f'{value!r}; try --to=bundle')


def num_classes(tensors: Tensors, name: str) -> int | None:
  """The number of outputs of the classifier called `name`; None if the file has none."""
  shape = tensors.shapes.get(f'{name}.weight')
  return shape[0] if shape else None


def _model(weights, num_classes, source):
  try:
    return PureModel(weights.family, weights.config, weights.image_shape, num_classes or 1)
  except UserError as error:
    raise UserError(f'{source}: {error}') from error
  except (TypeError, ValueError, OverflowError, ArithmeticError) as error:
    raise UserError(f'{source}: no {weights.family} can be built from its config ({error})') from error


def _known(weights):
  patch = getattr(weights.config, 'patch_size', 1)
  return {'P': patch, 'Q': patch, 'C': weights.preprocessing.channels}


def _check_size(tensors, weights):
  """Raises UserError if the config has more blocks than the file has tensors, before their shapes are computed."""
  config = weights.config
  blocks = sum(config.depths if hasattr(config, 'depths') else [config.depth])
  if blocks > len(tensors.shapes):
    raise UserError(f'{tensors.source}: its config has {blocks:,} blocks, but the file has only {len(tensors.shapes)} '
                    'tensors')


def check_names(tensors: Tensors, bound: Sequence[rules_lib.Bound], known: Mapping[str, int],
                without: tuple[str, ...]) -> set[str]:
  """The set of our names that are left out. Raises UserError for tensors that are neither used nor in `without`."""
  expected = rules_lib.expected(bound, known)
  excused = lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in without)
  missing = [name for name in expected if name not in tensors.shapes]
  unused = [name for name in tensors.shapes if name not in expected]
  other = [name for name in expected if name in tensors.shapes and tensors.shapes[name] != expected[name]]
  faults = []
  if names := [name for name in missing if not excused(name)]:
    faults.append(_list('missing', names))
  if names := [name for name in unused if not excused(name)]:
    faults.append(_list('not used by this model', names))
  if names := [name for name in other if not excused(name)]:
    faults.append(_list('of another shape', [f'{name} (expected {list(expected[name])}, got '
                                             f'{list(tensors.shapes[name])})' for name in names]))
  if faults:
    found = len(expected) - len(missing)
    hint = '' if 2 * found > len(expected) else '; is it another architecture?'
    raise UserError(f'{tensors.source}: {"; ".join(faults)}{hint}')
  gone = {name for name in missing + other if excused(name)}
  return {ours for b in bound if gone & set(b.theirs) for ours in b.ours}


def _list(what, names, most=12):
  more = f' and {len(names) - most} more' if len(names) > most else ''
  return f'{len(names)} tensor{"s" * (len(names) > 1)} {what}: {", ".join(names[:most])}{more}'


def _without(tree, path):
  """A nested dict without the entry at a path (of strings; keys may be numbers)."""
  out = {key: _without(value, path[1:]) if str(key) == path[0] and len(path) > 1 else value
         for key, value in tree.items() if len(path) > 1 or str(key) != path[0]}
  return {key: value for key, value in out.items() if value != {}}
