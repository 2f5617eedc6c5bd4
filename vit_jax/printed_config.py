"""A config with what each key means, as a tree or as a recipe.

What a key means is said where it is declared: by the comment above or behind the field of its dataclass.
"""

import ast
import dataclasses
import functools
import inspect
import io
import textwrap
import tokenize
import typing
from collections.abc import Iterator
from typing import Any

from vit_jax import schema

_WIDTH = 120
_COLUMN = 44  # where comments of the tree begin


@functools.cache
def comments(cls: type) -> dict[str, str]:
  """{field: the comment above it or behind it} of a dataclass and those that it extends."""
  out = {}
  for one in reversed(cls.__mro__):
    try:
      source = textwrap.dedent(inspect.getsource(one))
    except (OSError, TypeError):  # made by make_dataclass, or built in
      continue
    if dataclasses.is_dataclass(one):
      out |= _of_source(source)
  return out


def _of_source(source):
  found, own_line = {}, set()
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      found[token.start[0]] = token.string.lstrip('# ')
      if token.line.lstrip().startswith('#'):
        own_line.add(token.start[0])
  out = {}
  for field in ast.parse(source).body[0].body:
    if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
      first = field.lineno
      while first - 1 in own_line:
        first -= 1
      lines = [found[line] for line in range(first, field.end_lineno + 1) if line in found]
      if lines:
        out[field.target.id] = ' '.join(lines)
  return out


@dataclasses.dataclass(frozen=True)
class _Key:
  """A field of a nested config: its path, value and default, whether it was set, and what it means."""
  path: str
  value: Any
  default: Any
  given: bool
  words: str


def _keys(config: Any, path: str = '') -> Iterator[_Key]:
  hints, said, given = typing.get_type_hints(type(config)), comments(type(config)), schema.given(config)
  for field in dataclasses.fields(config):
    value, name = getattr(config, field.name), f'{path}{field.name}'
    if dataclasses.is_dataclass(value):
      yield from _keys(value, f'{name}.')
      continue
    words, choices = said.get(field.name, ''), schema.choices(hints[field.name])
    if not all(choice in words for choice in choices):
      words = f'{words.removesuffix(".")}; {" | ".join(choices)}' if words else ' | '.join(choices)
    yield _Key(name, value, schema.default(field), field.name in given, words)


def tree(config: Any) -> str:
  """One line for each key: its value, what it means, and its default where it has another value."""
  lines, above = [], ()
  for key in _keys(config):
    *parents, name = key.path.split('.')
    for depth in range(len(parents)):
      if tuple(parents[:depth + 1]) != above[:depth + 1]:
        lines.append(f'{"  " * depth}{parents[depth]}')
    above = tuple(parents)
    text = f'{"  " * len(parents)}{name} = {key.value!r}'
    default = f'[default: {key.default!r}]' if key.value != key.default else ''
    words = ' '.join(filter(None, (default, key.words)))
    wrapped = textwrap.wrap(words, max(_WIDTH - max(_COLUMN, len(text) + 2) - 2, 40))
    lines.append(f'{text:<{_COLUMN - 2}}  # {wrapped[0]}' if wrapped else text)
    lines += [f'{"":<{_COLUMN}}# {line}' for line in wrapped[1:]]
  return '\n'.join(lines)


def recipe(config: Any, title: str) -> str:
  """The text of a recipe of the same run: what is set as it is, all other keys as comments with their defaults."""
  lines = [f'"""{title}"""', '', 'from vit_jax import config', '', '', 'def get_config():',
           f'  c = config.defaults({config.family!r})']
  room = None
  for key in _keys(config):
    if key.path == 'family':
      continue
    if key.path.rpartition('.')[0] != room:
      room = key.path.rpartition('.')[0]
      lines.append('')
    lines += [f'  # {line}' for line in textwrap.wrap(key.words, _WIDTH - 4)]
    lines.append(f'  {"" if key.given else "# "}c.{key.path} = {key.value!r}')
  return '\n'.join([*lines, '', '  return c', ''])


def changes(config: Any, other: Any) -> list[str]:
  """`train.steps: None -> 200` for each key in which `config` differs from `other`, with what it means."""
  before, words = schema.flat(schema.plain(other)), {key.path: key.words for key in _keys(config)}
  now = schema.flat(schema.plain(config))
  differing = [key for key in {**before, **now} if before.get(key) != now.get(key)]
  return [f'{key}: {before.get(key)!r} -> {now.get(key)!r}' + (f'  # {words[key]}' if words.get(key) else '')
          for key in differing]
