"""A run that starts from given weights: what of its config they decide, and the state that they fill."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from flax import traverse_util

from vit_jax import interop
from vit_jax.errors import UserError
from vit_jax.interop import matching
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel

# Fields of a model's config that are a matter of training, not of its weights.
_OF_TRAINING = ('dropout', 'drop_path', 'dtype')


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
  path: str | None = None  # what `interop.read` reads: a run, a bundle, a file, hf:OWNER/NAME; None: start at random
  without: tuple[str, ...] = ()  # patterns of the file's own names: these may be unused, missing or of another shape
  ignore: tuple[str, ...] = ()  # patterns of our names: what they match starts afresh (`interop.matching`)
  probe: Literal['never', 'on_cpu', 'always'] = 'never'  # stop at frozen features, k-NN and a linear probe (`probe`)
  # Of the weights' bits. It takes the path's place in the run's identity, and other weights there are refused.
  digest: str | None = None


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Weights that fit a model.

  Attributes:
    source: where they were read.
    arrays: {'params', 'stats'}: nested dicts of the arrays that the model takes over.
    new: the names of the model's parameters that start afresh.
  """
  source: str
  arrays: dict[str, dict]
  new: tuple[str, ...]

  def fill(self, train_state: Any) -> Any:
    """The initial state with these weights in it, lying where it lay."""
    params, stats = _filled(train_state.params, self.arrays['params']), _filled(train_state.stats, self.arrays['stats'])
    ema = _filled(train_state.ema, self.arrays['params']) if train_state.ema else train_state.ema
    return train_state._replace(params=params, stats=stats, ema=ema)


def check(config: PretrainedConfig) -> None:
  """Raises UserError for values that nothing reads."""
  for field in dataclasses.fields(config):
    if config.path is None and (value := getattr(config, field.name)) != field.default:
      raise UserError(f'pretrained.{field.name}={value!r}: there is nothing to start from; give pretrained.path, a '
                      'run, a bundle, a file of weights or hf:OWNER/NAME')


def resolve(config: Any) -> Any:
  """A RunConfig whose `pretrained.path` is read: family, model and preprocessing are the weights'.

  Fields of `model` and `data` that are not at their defaults stay as they are, and so do dropout, drop_path and dtype.
  A config without `pretrained.path` is returned as it is.

  Raises:
    UserError: the weights cannot be read, or the config is for another family or other weights.
  """
  given = config.pretrained
  if given.path is None:
    return config
  weights, digest = read(given)
  if given.digest not in (None, digest):
    raise UserError(f'pretrained.path={given.path}: other weights than those that are meant: their digest is {digest}, '
                    f'where pretrained.digest is {given.digest}')
  shape, data = weights.preprocessing, config.data
  augment = data.augment
  if augment.eval_crop is None:
    augment = dataclasses.replace(augment, eval_crop=shape.crop)
  fill = lambda name, value: value if getattr(data, name) is None else getattr(data, name)
  data = dataclasses.replace(
      data, augment=augment, image_size=fill('image_size', tuple(shape.size)),
      channels=fill('channels', shape.channels), mean=fill('mean', tuple(shape.mean)),
      std=fill('std', tuple(shape.std)), interpolation=fill('interpolation', shape.interpolation))
  return dataclasses.replace(config, family=weights.family, model=_model(config, weights), data=data,
                             pretrained=dataclasses.replace(given, digest=digest))


def find(config: PretrainedConfig, model: PureModel, class_names: tuple[str, ...]) -> Pretrained | None:
  """The weights of a resolved config, for a model; None where it starts at random.

  Raises:
    UserError: arrays that do not fit; each is named (`interop.matching`).
  """
  if config.path is None:
    return None
  weights, _ = read(config)
  arrays = matching.matching_arrays(weights, model, class_names, config.ignore)
  taken = traverse_util.flatten_dict(arrays['params'])
  new = ['/'.join(map(str, path)) for path in traverse_util.flatten_dict(model.param_shapes()) if path not in taken]
  return Pretrained(weights.source, arrays, tuple(new))


def read(config: PretrainedConfig) -> tuple[Weights, str]:
  """The weights and their digest. Raises UserError where they cannot be read."""
  try:
    return _read(config.path, config.without)
  except UserError as error:
    raise UserError(f'{error}\nThat is what pretrained.path={config.path} names; --config.pretrained.path=PATH starts '
                    'from other weights: a run of yours, a bundle, a folder of transformers or timm, a .npz file'
                    ) from error


@functools.lru_cache(maxsize=1)  # resolved, fitted and probed: read once
def _read(path, without):
  weights = interop.read(path, without)
  return weights, digest(weights)


def digest(weights: Weights) -> str:
  """16 hex digits of the names and bits of all arrays: the same in whatever file they lie."""
  told = hashlib.sha256()
  for path, array in sorted(traverse_util.flatten_dict({'params': weights.params, 'stats': weights.stats}).items(),
                            key=lambda item: matching.name(item[0])):
    told.update(f'{matching.name(path)} {array.shape}'.encode())
    told.update(np.ascontiguousarray(array, np.float32))
  return told.hexdigest()[:16]


def _model(config, weights):
  changed = {f.name: getattr(config.model, f.name) for f in dataclasses.fields(config.model)
             if getattr(config.model, f.name) != getattr(type(config.model)(), f.name)}
  theirs = weights.config
  if config.family != weights.family:
    if structure := sorted(changed.keys() - set(_OF_TRAINING)):
      raise UserError(f'pretrained.path={config.pretrained.path}: weights of family {weights.family!r}, but '
                      f'model.{structure[0]} is set for family {config.family!r}; start from '
                      f'config.defaults({weights.family!r})')
  ours = {name: getattr(config.model, name) for name in _OF_TRAINING if hasattr(config.model, name)} | changed
  return dataclasses.replace(theirs, **{name: value for name, value in ours.items() if hasattr(theirs, name)})


def _filled(tree: dict, arrays: dict) -> dict:
  """A tree of arrays on the devices, with those replaced that are given; each process makes the parts it holds."""
  given = traverse_util.flatten_dict(arrays)
  place: Callable = lambda old, new: jax.make_array_from_callback(old.shape, old.sharding, lambda index: new[index])
  return traverse_util.unflatten_dict({path: place(leaf, given[path]) if path in given else leaf
                                       for path, leaf in traverse_util.flatten_dict(tree).items()})
