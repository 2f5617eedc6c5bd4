"""Matching weights to a model with other classes or another picture size. No array of either is silently ignored."""

import dataclasses
import fnmatch

import numpy as np
from flax import traverse_util

from vit_jax import models
from vit_jax.errors import UserError
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel

_MOST_NAMED = 12


def resized(weights: Weights, size: tuple[int, int]) -> Weights:
  """The same model for pictures of another size; learned positions are interpolated.

  Args:
    weights: the model.
    size: (height, width).

  Raises:
    UserError: the family does not support the size.
  """
  shape = (*size, weights.image_shape[2])
  models.PureModel(weights.family, weights.config, shape, weights.num_classes or 2)  # raises if it cannot be built
  params = models.family(weights.family).resized(weights.params, weights.config, weights.image_shape, shape)
  return dataclasses.replace(weights, params=params, preprocessing=dataclasses.replace(weights.preprocessing,
                                                                                       size=tuple(size)))


def matching_arrays(weights: Weights, model: PureModel, class_names: tuple[str, ...],
                    ignore: tuple[str, ...] = (), whole: bool = False) -> dict:
  """The arrays with which the weights initialize a model: {'params', 'stats'}, nested dicts.

  Position tables are resized to the model's pictures. The head is left out unless it has the same number of classes
  and, if the weights have class names, the same names. So are parameters that the model's objective adds to those of
  its family. All other arrays must match in name and shape.

  Args:
    weights: weights of the model's family.
    model: the model to initialize.
    class_names: the class names of the model.
    ignore: patterns of names, such as 'head/*' or 'encoder/*/scale1'. Arrays of the weights that match are left out;
      arrays of the model that match keep their initialization.
    whole: whether the weights have what the model's objective adds; then that must match too.

  Raises:
    UserError: the weights have arrays that the model lacks, lack arrays of the model, or have arrays of another shape.
      The message lists them.
  """
  params = models.family(weights.family).resized(weights.params, weights.config, weights.image_shape, model.image_shape)
  given = _flat({'params': params, 'stats': weights.stats})
  wanted = _flat({'params': model.param_shapes(), 'stats': model.stats_shapes()})
  plain = PureModel(model.name, model.config, model.image_shape, model.num_classes)
  roles = _flat({'params': plain.param_roles()})
  head = {path for path, role in roles.items() if role == 'output'}
  added = set() if whole else {path for path in wanted if path[0] == 'params' and path not in roles}
  new_head = set() if _same_classes(weights, class_names) and head <= wanted.keys() else head
  ignored = {path for path in given.keys() | wanted.keys() if any(fnmatch.fnmatch(name(path), p) for p in ignore)}
  if unused := [p for p in ignore if not any(fnmatch.fnmatch(name(path), p) for path in given.keys() | wanted.keys())]:
    raise UserError(f'pretrained.ignore={unused[0]!r}: matches nothing in {weights.source} or the model')
  left_out = new_head | added | ignored
  wrong = [f'{name(path)}: not in the weights' for path in wanted if path not in given and path not in left_out]
  wrong += [f'{name(path)} {given[path].shape}: not in this model' for path in given
            if path not in wanted and path not in left_out]
  wrong += [f'{name(path)}: expected {shape.shape}, got {given[path].shape}' for path, shape in wanted.items()
            if path in given and path not in left_out and given[path].shape != shape.shape]
  if wrong:
    more = f'\n  and {len(wrong) - _MOST_NAMED} more' if len(wrong) > _MOST_NAMED else ''
    arrays = f'{len(wrong)} array{"s do" if len(wrong) > 1 else " does"}'
    raise UserError(f'{weights.source}: {arrays} not fit the {weights.family} of this config:\n  '
                    + '\n  '.join(sorted(wrong)[:_MOST_NAMED]) + more
                    + '\nList arrays that may be left out in pretrained.ignore, or leave out what sets config.model')
  matching = {path: np.asarray(given[path], np.float32) for path in wanted if path in given and path not in left_out}
  return {'params': {}, 'stats': {}} | traverse_util.unflatten_dict(matching)


def name(path: tuple) -> str:
  """The name of an array in messages and patterns: ('params', 'stages', 0, 'first') -> 'stages/0/first'."""
  return '/'.join(map(str, path[1:]))


def _flat(tree):
  return traverse_util.flatten_dict(tree)


def _same_classes(weights, class_names):
  if weights.headless or weights.num_classes != len(class_names):
    return False
  return weights.class_names in (None, tuple(class_names))
