"""Runs that start from pretrained weights: the fields of the config that the weights set, and the initial state."""

import contextlib
import dataclasses
import fnmatch
import functools
import hashlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from flax import traverse_util

from vit_jax import interop, schema
from vit_jax.data import text as text_lib
from vit_jax.data.text import TextConfig
from vit_jax.errors import UserError
from vit_jax.interop import matching
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel

# Fields of a model's config that belong to training, not to its weights.
_OF_TRAINING = ('dropout', 'drop_path', 'dtype')
_LEARNT = ('scale', 'bias', 'templates', 'digest')  # of whole weights: nothing of the model's shape
_OF_A_TEXT = ('length', 'clean', 'pad')  # of data.text: whatever the tokenizer
_OF_DATA = ('bytes', 'bpe')  # tokenizers of runs that start at random: they give way to that of the weights


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
  """The weights from which a run starts."""
  path: str | None = None  # a run, a bundle, a file or hf:OWNER/NAME (`interop.read`); None: random initial values
  without: tuple[str, ...] = ()  # patterns of names in the file that may be unused, missing or of another shape
  ignore: tuple[str, ...] = ()  # patterns of our names; matching parameters start at random (`interop.matching`)
  probe: Literal['never', 'on_cpu', 'always'] = 'never'  # stop at frozen features, k-NN and a linear probe (`probe`)
  # Of the weights' bits. It replaces the path in the run's identity, and other weights at the path are refused.
  digest: str | None = None


@dataclasses.dataclass(frozen=True)
class Whole:
  """Weights with all that an objective has added to the family's model, such as a text tower.

  Attributes:
    weights: all parameters.
    options: the objective's, `config.loss` of a run with this model.
    text: the tokens of its texts, `config.data.text`.
    table: the name of the parameter that has a row for each token; what is beside it is what has been added.
  """
  weights: Weights
  options: Any
  text: TextConfig
  table: str


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """Weights that fit a model.

  Attributes:
    source: where they were read from.
    arrays: {'params', 'stats'}: nested dicts of the arrays that the model uses.
    new: the names of the model's parameters that start at random.
    otherwise: what the config sets of the model that is not so in the weights, in words.
  """
  source: str
  arrays: dict[str, dict]
  new: tuple[str, ...]
  otherwise: tuple[str, ...] = ()

  def fill(self, train_state: Any) -> Any:
    """The initial state with these weights filled in, with the same sharding."""
    params, stats = _filled(train_state.params, self.arrays['params']), _filled(train_state.stats, self.arrays['stats'])
    ema = _filled(train_state.ema, self.arrays['params']) if train_state.ema else train_state.ema
    return train_state._replace(params=params, stats=stats, ema=ema)


def check(config: PretrainedConfig) -> None:
  """Raises UserError for values that nothing reads."""
  for field in dataclasses.fields(config):
    if config.path is None and (value := getattr(config, field.name)) != field.default:
      raise UserError(f'pretrained.{field.name}={value!r}: no weights to start from; set pretrained.path to a run, '
                      'a bundle, a file of weights or hf:OWNER/NAME')


def resolve(config: Any) -> Any:
  """Resolves a RunConfig with `pretrained.path`: family, model and preprocessing are set to those of the weights.

  Fields of `model` that a recipe or a flag has set keep their values, whatever these are, and so do dropout, drop_path
  and dtype, and fields of `data` that are not None. From whole weights (`Whole`) also `loss` and `data.text` are set,
  where a recipe or a flag has not. A config without `pretrained.path` is returned unchanged.

  Raises:
    UserError: the weights cannot be read, or the config is for another family or other weights.
  """
  given = config.pretrained
  if given.path is None:
    return config
  weights, digest, whole = _of(given, config.loss)
  if given.digest not in (None, digest):
    raise UserError(f'pretrained.path={given.path}: expected weights with pretrained.digest={given.digest}, got '
                    f'{digest}')
  shape, data = weights.preprocessing, config.data
  augment = data.augment
  if augment.eval_crop is None:
    augment = dataclasses.replace(augment, eval_crop=shape.crop)
  fill = lambda name, value: value if getattr(data, name) is None else getattr(data, name)
  data = dataclasses.replace(
      data, augment=augment, image_size=fill('image_size', tuple(shape.size)),
      channels=fill('channels', shape.channels), mean=fill('mean', tuple(shape.mean)),
      std=fill('std', tuple(shape.std)), interpolation=fill('interpolation', shape.interpolation))
  loss = config.loss
  if whole is not None:
    loss, data = _kept(config.loss, whole.options), dataclasses.replace(data, text=_text(config, whole))
  return dataclasses.replace(config, family=weights.family, model=_model(config, weights), data=data, loss=loss,
                             pretrained=dataclasses.replace(given, digest=digest))


def find(config: PretrainedConfig, model: PureModel, class_names: tuple[str, ...]) -> Pretrained | None:
  """The weights of a resolved config for a model; None if the run starts from random values.

  Raises:
    UserError: arrays do not fit; the message names each (`interop.matching`).
  """
  if config.path is None:
    return None
  objective = model.objective
  weights, _, whole = _of(config, objective and objective.config)
  otherwise = _set_otherwise('model', model.config, weights.config)
  if whole is not None:
    otherwise += _set_otherwise('loss', objective.config, whole.options)
    otherwise += _set_otherwise('data.text', objective.text, whole.text)
  try:
    arrays = matching.matching_arrays(weights, model, class_names, config.ignore, whole is not None)
  except UserError as error:
    raise UserError('\n'.join([str(error), *(f'The config sets {what}' for what in otherwise)])) from error
  taken = traverse_util.flatten_dict(arrays['params'])
  new = ['/'.join(map(str, path)) for path in traverse_util.flatten_dict(model.param_shapes()) if path not in taken]
  return Pretrained(weights.source, arrays, tuple(new), otherwise)


def read(config: PretrainedConfig) -> tuple[Weights, str]:
  """Reads the weights and their digest. Raises UserError if they cannot be read."""
  with _explained(config):
    return _read(config.path, config.without)


def _of(config, options):
  """(weights, their digest, Whole if the objective with these options takes them so or None)."""
  reader = getattr(type(options), 'of_weights', None)
  with _explained(config):
    whole, digest = _read_whole(reader, config.path, config.ignore) if reader else (None, '')
    if whole is not None and config.without:
      added = whole.table.partition('/')[0]
      raise UserError(f'pretrained.without={config.without}: is for a model of pictures alone, and these weights have '
                      f"{added}/* too. Leave it out, or set pretrained.ignore to ('{added}/*',): then that is new")
  return (*read(config), None) if whole is None else (whole.weights, digest, whole)


@contextlib.contextmanager
def _explained(config):
  """Says of an error where weights are read from."""
  try:
    yield
  except UserError as error:
    raise UserError(f'{error}\nThe weights are read from pretrained.path={config.path}. To start from other weights, '
                    'set --config.pretrained.path=PATH to a run, a bundle, a folder of transformers or timm, or a .npz '
                    'file') from error


@functools.lru_cache(maxsize=1)
def _read_whole(reader, path, ignore):
  whole = reader(path, ignore)
  return whole, whole and digest(whole.weights)


@functools.lru_cache(maxsize=1)  # used several times in a run, but read once
def _read(path, without):
  weights = interop.read(path, without)
  return weights, digest(weights)


def digest(weights: Weights) -> str:
  """A hash, 16 hex digits, of the names and bits of all arrays, independent of the file that stores them."""
  hashed = hashlib.sha256()
  for path, array in sorted(traverse_util.flatten_dict({'params': weights.params, 'stats': weights.stats}).items(),
                            key=lambda item: matching.name(item[0])):
    hashed.update(f'{matching.name(path)} {array.shape}'.encode())
    hashed.update(np.ascontiguousarray(array, np.float32))
  return hashed.hexdigest()[:16]


def _model(config, weights):
  given, path, theirs = schema.given(config.model), config.pretrained.path, weights.config
  if config.family != weights.family:
    if 'family' in schema.given(config):
      raise UserError(f'pretrained.path={path}: weights of family {weights.family!r}, but family={config.family!r} is '
                      'set')
    if structure := sorted(given - set(_OF_TRAINING)):
      raise UserError(f'pretrained.path={path}: weights of family {weights.family!r}, but model.{structure[0]} is set '
                      f'for family {config.family!r}; start from config.defaults({weights.family!r})')
  return dataclasses.replace(theirs, **{name: getattr(config.model, name) for name in {*_OF_TRAINING, *given}
                                        if hasattr(config.model, name) and hasattr(theirs, name)})


def _kept(ours: Any, theirs: Any) -> Any:
  """Options of the weights, with those that a recipe or a flag has set."""
  mine = {name: getattr(ours, name) for name in schema.given(ours)}
  for name, value in ((field.name, getattr(ours, field.name)) for field in dataclasses.fields(ours)):
    if dataclasses.is_dataclass(value):
      mine[name] = _kept(value, getattr(theirs, name))
  return dataclasses.replace(theirs, **mine)


def _text(config, whole):
  """`data.text`: the tokens are those of the weights, where their table is read; only they fit it."""
  ours, theirs = config.data.text, whole.text
  if any(fnmatch.fnmatch(whole.table, pattern) for pattern in config.pretrained.ignore):
    return ours
  if 'tokenizer' in schema.given(ours) and ours.tokenizer not in (*_OF_DATA, theirs.tokenizer) and (
      text_lib.tokenizer(dataclasses.replace(theirs, tokenizer=ours.tokenizer, digest=None), list).digest
      != theirs.digest):
    raise UserError(f'data.text.tokenizer={ours.tokenizer}: pretrained.path={config.pretrained.path} has a table of '
                    f'the tokens of {theirs.tokenizer}. Leave it out, or let the table be new: '
                    f"pretrained.ignore=('{whole.table}',)")
  mine = {name: getattr(ours, name) for name in _OF_A_TEXT if name in schema.given(ours)}
  if not mine:
    return theirs
  text = dataclasses.replace(theirs, **mine, digest=None)
  return dataclasses.replace(text, digest=text_lib.tokenizer(text, list).digest)


def _set_otherwise(where: str, ours: Any, theirs: Any) -> tuple[str, ...]:
  """What a config sets that is not so in the weights, in words."""
  ours, theirs = (schema.flat(dataclasses.asdict(config)) for config in (ours, theirs))
  return tuple(f'{where}.{name}={value!r}, the weights have {theirs[name]!r}' for name, value in ours.items()
               if value != theirs[name] and name not in (*_OF_TRAINING, *_LEARNT))


def _filled(tree: dict, arrays: dict) -> dict:
  """Replaces the given arrays in a tree on the devices. Each process makes the parts that it holds."""
  given = traverse_util.flatten_dict(arrays)
  place: Callable = lambda old, new: jax.make_array_from_callback(old.shape, old.sharding, lambda index: new[index])
  return traverse_util.unflatten_dict({path: place(leaf, given[path]) if path in given else leaf
                                       for path, leaf in traverse_util.flatten_dict(tree).items()})
