"""The schema of configs: a ConfigDict on the outside (recipes, flags), frozen dataclasses on the inside.

A dataclass's fields are the only place where options and their defaults live. Recipes set values of a ConfigDict of
these defaults (`vit_jax.config.defaults`). The program casts it once, strictly, so that a misspelt key or a wrong type
ends the run before anything is compiled. `options.check` then
looks at each value.

Field types: bool, int, float, str, Literal[...], `X | None`, `tuple[X, ...]`, `tuple[X, X]`, and other dataclasses.
"""

import dataclasses
import functools
import hashlib
import json
import math
import sys
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar

import ml_collections
import numpy as np
from ml_collections.config_dict import placeholder

from vit_jax import options
from vit_jax.errors import UserError, nearest

T = TypeVar('T')


class _Config(ml_collections.ConfigDict):
  """A ConfigDict in which a field's old name stands for the field, and some fields decide on others (`follow`).

  It knows which fields were set (`given`).
  """
  _renamed: dict[str, str] = {}
  _given: frozenset[str] = frozenset()
  _followers: dict[str, Callable] = {}

  def _now(self, key):
    if (new := self._renamed.get(key)) is not None:
      _note_renamed(key, new)
      return new
    return key

  def __getitem__(self, key):
    return super().__getitem__(self._now(key))

  def __setitem__(self, key, value):
    key = self._now(key)
    if self.is_locked and key not in self:  # ConfigDict's own words list all fields and their values
      raise KeyError(f'no such key {key!r}{nearest(key, self.keys())}')
    changed = key in self._followers and value != self[key]
    super().__setitem__(key, value)
    object.__setattr__(self, '_given', self._given | {key})
    if changed:
      self._followers[key](self)

  def __setstate__(self, state):  # of copy.deepcopy and pickle
    super().__setstate__(state)
    self._remember(state['_renamed'], state['_given'], state.get('_followers', {}))

  def copy_and_resolve_references(self, visit_map=None):
    copied = super().copy_and_resolve_references(visit_map)
    copied._remember(self._renamed, self._given, self._followers)
    return copied

  def _remember(self, renamed, given, followers):
    object.__setattr__(self, '_renamed', renamed)
    object.__setattr__(self, '_given', given)
    object.__setattr__(self, '_followers', followers)

  def __contains__(self, key):
    return super().__contains__(self._now(key))

  def get_type(self, key):
    return super().get_type(self._now(key))


def follow(config: ml_collections.ConfigDict, key: str, change: Callable[[ml_collections.ConfigDict], None]) -> None:
  """Has `change` called on a ConfigDict of `to_config_dict` when the value of a key becomes another one.

  On a command line such keys are set before all others (`recipe.define_flag`).
  """
  object.__setattr__(config, '_followers', config._followers | {key: change})


def deciding(config: Any) -> tuple[str, ...]:
  """The keys of a config that decide on others (`follow`)."""
  return tuple(getattr(config, '_followers', ()))


def _renamed(cls):
  """{old name: new name} of a dataclass's fields."""
  return {was: field.name for field in dataclasses.fields(cls) if (was := options.of(field).was)}


@functools.cache  # said once
def _note_renamed(old, new):
  print(f'note: the option {old} is called {new} now; the value given for {old} is used', file=sys.stderr)


def to_config_dict(cls: type) -> ml_collections.ConfigDict:
  """A dataclass's defaults as a locked ConfigDict; fields that default to None become typed placeholders.

  It takes any value, so that image_size = 224 is fine for a pair; `cast` is what checks types.
  """
  config, hints = _Config(type_safe=False), typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):
    kind = _strip_optional(hints[field.name])[0]
    if dataclasses.is_dataclass(kind):
      config[field.name] = to_config_dict(kind)
    elif (value := default(field)) is None:
      literal = typing.get_origin(kind) is typing.Literal
      config[field.name] = placeholder(type(typing.get_args(kind)[0]) if literal else typing.get_origin(kind) or kind)
    else:
      config[field.name] = value
  config._remember(_renamed(cls), frozenset(), {})
  return config.lock()


def cast(cls: type[T], config: Any, path: str = 'config') -> T:
  """Casts a ConfigDict (or nested dict) to the frozen dataclass `cls`. `given` then says which fields were set.

  Raises:
    UserError: an unknown key (with the nearest valid one) or a value of the wrong type.
  """
  if not hasattr(config, 'keys'):
    raise UserError(f'{path}: expected the options of {cls.__name__}, got {config!r}')
  hints, renamed, values = typing.get_type_hints(cls), _renamed(cls), {}
  for key in config:
    if (name := renamed.get(key, key)) not in hints:
      raise UserError(f'{path}.{key}: no such key{nearest(key, hints)}')
    if name != key:
      _note_renamed(key, name)
    values[name] = _cast_value(hints[name], config[key], f'{path}.{name}')
  made = cls(**values)
  object.__setattr__(made, '_given', config._given if isinstance(config, _Config) else frozenset(values))
  return made


def given(config: Any) -> frozenset[str]:
  """The fields of a config dataclass that a recipe or a flag has set, also those set to their default.

  `dataclasses.replace` forgets which were set; then only those count that are not at their default.
  """
  other = {field.name for field in dataclasses.fields(config) if getattr(config, field.name) != default(field)}
  return getattr(config, '_given', frozenset()) | other


def _cast_value(kind, value, path):
  kind, optional = _strip_optional(kind)
  if value is None:
    if optional:
      return None
    raise UserError(f'{path}: expected {_describe(kind)}, got None')
  if dataclasses.is_dataclass(kind):
    return cast(kind, value, path)
  if isinstance(value, (np.generic, np.ndarray)):
    value = value.tolist()
  origin, args = typing.get_origin(kind), typing.get_args(kind)
  if origin is typing.Literal and isinstance(value, str) and value in args:
    return value
  if origin is tuple:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if args[-1] is Ellipsis:
      args = args[:1] * len(values)
    elif len(values) == 1:  # image_size=28 means (28, 28)
      values *= len(args)
    if len(values) == len(args):
      return tuple(_cast_value(a, v, path) for a, v in zip(args, values))
  if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
    if isinstance(value, int) and abs(value) > sys.float_info.max:  # of hundreds of digits
      return math.inf if value > 0 else -math.inf
    return float(value)
  if isinstance(kind, type) and isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
    return value
  raise UserError(f'{path}: expected {_describe(kind)}, got {value!r}')


def _strip_optional(kind):
  """(X, True) of `X | None`, else (kind, False)."""
  if typing.get_origin(kind) in (typing.Union, types.UnionType):
    rest = [a for a in typing.get_args(kind) if a is not type(None)]
    return rest[0], True
  return kind, False


def choices(kind: Any) -> tuple[str, ...]:
  """The texts that a field of this type takes; () where it takes others too."""
  kind, _ = _strip_optional(kind)
  return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


def _describe(kind):
  if typing.get_origin(kind) is typing.Literal:
    return 'one of ' + ', '.join(repr(a) for a in typing.get_args(kind))
  return getattr(kind, '__name__', str(kind)) if not typing.get_origin(kind) else str(kind)


def default(field: dataclasses.Field) -> Any:
  """The default of a dataclass's field."""
  return field.default_factory() if field.default is dataclasses.MISSING else field.default


def plain(config: Any) -> dict:
  """A config dataclass as nested plain dicts, ready for JSON."""
  return json.loads(json.dumps(dataclasses.asdict(config)))


def changed(config: Any) -> dict:
  """The fields of a config dataclass that are not at their default, nested, as plain JSON values.

  A field with the metadata `identity` counts though it is at its default.
  """
  out = {}
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      if inner := changed(value):
        out[field.name] = inner
    elif value != default(field) or field.metadata.get('identity'):
      out[field.name] = value
  return json.loads(json.dumps(out))


def config_hash(config: Any, without: tuple[str, ...] = ('system',), more: dict | None = None) -> str:
  """The identity of a run: 10 hex digits of its fields that are not at their default, `system` left out.

  Fields at their default do not count, so an option that is added later leaves old runs where they are. `more` counts
  beside the fields.
  """
  fields = {key: value for key, value in changed(config).items() if key not in without} | (more or {})
  return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]


def flat(tree: dict, path: str = '') -> dict[str, Any]:
  """{'model.width': 192, ...} of the leaves of a nested plain dict."""
  out = {}
  for key, value in tree.items():
    out |= flat(value, f'{path}{key}.') if isinstance(value, dict) else {f'{path}{key}': value}
  return out


def differing_keys(ours: dict, theirs: dict) -> list[str]:
  """`key: ours, there theirs` for each leaf in which two nested plain dicts differ."""
  a, b = flat(ours), flat(theirs)
  keys = sorted(a.keys() | b.keys(), key=lambda key: key.split('.'))
  return [f'{key}: {a.get(key)!r}, there {b.get(key)!r}' for key in keys if a.get(key) != b.get(key)]
