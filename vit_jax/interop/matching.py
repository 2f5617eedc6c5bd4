"""Weights put into a model of other classes or another picture size: every array of both is accounted for."""

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
  """The same model for pictures of another (height, width): learned positions are interpolated.

  Raises:
    UserError: the family refuses that size.
  """
  shape = (*size, weights.image_shape[2])
  models.PureModel(weights.family, weights.config, shape, weights.num_classes or 2)  # refuses what cannot be built
  params = models.family(weights.family).resized(weights.params, weights.config, weights.image_shape, shape)
  return dataclasses.replace(weights, params=params, preprocessing=dataclasses.replace(weights.preprocessing,
                                                                                       size=tuple(size)))


def fit(weights: Weights, model: PureModel, class_names: tuple[str, ...], ignore: tuple[str, ...] = ()) -> dict:
  """What the weights give to a model: {'params', 'stats'}, nested dicts of the arrays that fit.

  Position tables are resized to the model's pictures. The head is left out, to be made new, unless it is for the same
  classes: as many, and called the same where the weights tell. All else must fit, name by name and shape by shape.

  Args:
    weights: of the model's family.
    model: what is to be filled.
    class_names: the model's.
    ignore: patterns of names, such as 'head/*' or 'encoder/*/scale1': what they match is left out where the weights
      have it, and where the model has it, it stays as it is initialised.

  Raises:
    UserError: arrays that the model has no place for, that it misses or that have another shape; each is named.
  """
  params = models.family(weights.family).resized(weights.params, weights.config, weights.image_shape, model.image_shape)
  given = _flat({'params': params, 'stats': weights.stats})
  wanted = _flat({'params': model.param_shapes(), 'stats': model.stats_shapes()})
  head = {path for path, role in _flat({'params': model.param_roles()}).items() if role == 'output'}
  new_head = set() if _same_classes(weights, class_names) else head
  named = {path for path in given.keys() | wanted.keys() if any(fnmatch.fnmatch(name(path), p) for p in ignore)}
  if unread := [p for p in ignore if not any(fnmatch.fnmatch(name(path), p) for path in given.keys() | wanted.keys())]:
    raise UserError(f'pretrained.ignore={unread[0]!r}: matches nothing in {weights.source} or the model')
  left_out = new_head | named
  wrong = [f'{name(path)}: not in the weights' for path in wanted if path not in given and path not in left_out]
  wrong += [f'{name(path)} {given[path].shape}: no place in this model' for path in given
            if path not in wanted and path not in left_out]
  wrong += [f'{name(path)}: {given[path].shape}, where this model has {shape.shape}' for path, shape in wanted.items()
            if path in given and path not in left_out and given[path].shape != shape.shape]
  if wrong:
    more = f'\n  and {len(wrong) - _MOST_NAMED} more' if len(wrong) > _MOST_NAMED else ''
    raise UserError(f'{weights.source}: {len(wrong)} arrays do not fit the {weights.family} of this config:\n  '
                    + '\n  '.join(sorted(wrong)[:_MOST_NAMED]) + more
                    + '\nName those that may be left out in pretrained.ignore, or leave config.model at its defaults')
  fitting = {path: np.asarray(given[path], np.float32) for path in wanted if path in given and path not in left_out}
  return {'params': {}, 'stats': {}} | traverse_util.unflatten_dict(fitting)


def name(path: tuple) -> str:
  """('params', 'stages', 0, 'first') -> 'stages/0/first': what messages and patterns call an array."""
  return '/'.join(map(str, path[1:]))


def _flat(tree):
  return traverse_util.flatten_dict(tree)


def _same_classes(weights, class_names):
  if weights.headless or weights.num_classes != len(class_names):
    return False
  return weights.class_names in (None, tuple(class_names))
