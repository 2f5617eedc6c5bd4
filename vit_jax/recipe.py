"""Recipes and sweep files: Python files that are loaded by path, `FILE.py` or `FILE.py:ARG`.

A file declares beside its function which ARGs there are: `ARGS = ('small', 'large')`, or `ARGS = str` for any text.
"""

import importlib.util
import inspect
import os
import pathlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from vit_jax import schema
from vit_jax.errors import UserError, nearest


def load(spec: str, flag: str, function: str, kind: type, hint: str) -> Any:
  """What the function of a file `FILE.py` or `FILE.py:ARG` returns, called with ARG where it is given.

  Args:
    spec: the file.
    flag: what names it in messages, such as 'config'.
    function: the name of the function.
    kind: the type of what it must return.
    hint: words for where that comes from.

  Raises:
    UserError: no such file, no such function in it, an ARG that it does not declare, an error in the file (its line is
      named), or another type.
  """
  file, _, argument = spec.partition(':')
  path = pathlib.Path(file)
  if not path.is_file():
    near = nearest(path.name, [p.name for p in path.parent.glob('*.py')]) if path.parent.is_dir() else ''
    raise UserError(f'--{flag}={spec}: no file {file}{near}')
  module_spec = importlib.util.spec_from_file_location(path.stem, path)
  if module_spec is None:
    raise UserError(f'--{flag}={spec}: {file} must be a Python file, NAME.py')
  module = importlib.util.module_from_spec(module_spec)
  _in_file(path, lambda: module_spec.loader.exec_module(module))
  if not hasattr(module, function):
    raise UserError(f'{file}: it has no {function}(), which returns {hint}')
  call = getattr(module, function)
  _check_argument(f'--{flag}={spec}', argument, call, getattr(module, 'ARGS', ()))
  value = _in_file(path, lambda: call(argument) if argument else call())
  if not isinstance(value, kind):
    missing = '; does the function end without `return`?' if value is None else ''
    raise UserError(f'{file}: {function}() returned {type(value).__name__}, expected {hint}{missing}')
  return value


def load_recipe(spec: str | os.PathLike) -> ml_collections.ConfigDict:
  """The ConfigDict of a recipe `FILE.py` or `FILE.py:ARG`. Raises UserError as `load` does."""
  return load(os.fspath(spec), 'config', 'get_config', ml_collections.ConfigDict,
              'the ConfigDict that vit_jax.config.defaults() makes')


def define_flag(help_text: str, flag_values: flags.FlagValues = flags.FLAGS, argv: Sequence[str] | None = None):
  """The --config flag, with --config.KEY=VALUE for any key; keys that decide on others are set first.

  Args:
    help_text: of the flag.
    flag_values: where it is defined.
    argv: the arguments that are parsed; None: those of the program.
  """
  holder = config_flags.DEFINE_config_file('config', None, help_text, flag_values=flag_values, sys_argv=argv)
  parser = flag_values['config'].parser
  load_file = parser.parse
  parser.parse = lambda path: decided(load_file(path), sys.argv if argv is None else argv)
  return holder


def decided(recipe: Any, argv: Sequence[str]) -> Any:
  """A recipe in which those arguments are set that decide on other keys (`schema.follow`), such as the objective."""
  for key in schema.deciding(recipe):
    for arg in argv:
      name, _, value = arg.lstrip('-').partition('=')
      if name == f'config.{key}':
        recipe[key] = value
  return recipe


def _check_argument(flag, argument, call, declared):
  """Raises UserError for an ARG that the file does not declare, and for none where the function needs one."""
  parameters = inspect.signature(call).parameters.values()
  texts = () if declared is str else (declared,) if isinstance(declared, str) else tuple(declared)
  known = f'; known: {", ".join(texts)}' if texts else ''
  if not argument:
    if any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
      raise UserError(f'{flag}: needs an argument, FILE.py:ARG{known}')
  elif not parameters:
    raise UserError(f'{flag}: takes no argument, so leave out :{argument}')
  elif declared is not str and argument not in texts:
    how = nearest(argument, texts) or ("; the file declares none: write ARGS = ('small', 'large') in it, or ARGS = str "
                                       'where any text is right')
    raise UserError(f'{flag}: no argument {argument!r}{how}')


def _in_file(path: pathlib.Path, run: Callable[[], Any]) -> Any:
  """Runs the code of a file; an error in it becomes a UserError that names the line."""
  try:
    return run()
  except UserError:
    raise
  except Exception as error:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.realpath(frame.filename) == os.path.realpath(path)]
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else lines and lines[-1]
    cause = error
    while cause.args and isinstance(cause.args[0], Exception):  # as ConfigDict wraps them
      cause = cause.args[0]
    words = cause.args[0] if len(cause.args) == 1 else cause
    raise UserError(f'{path}{f", line {line}" if line else ""}: {type(error).__name__}: {words}') from error


def check_key(recipe: ml_collections.ConfigDict, key: str) -> None:
  """Raises a UserError that names the nearest key where `recipe` has no `key`, such as 'model.width'."""
  node, path = recipe, 'config'
  for part in key.split('.'):
    if not hasattr(node, 'keys') or part not in node:
      known = node.keys() if hasattr(node, 'keys') else ()
      raise UserError(f'--config.{key}: {path} has no key {part!r}{nearest(part, known)}')
    node, path = node[part], f'{path}.{part}'


def without_nones(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """(the arguments without each --config.KEY=None, the KEYs that None is the last value of).

  A flag of a number takes numbers only; `set_none` sets these.
  """
  parts = [arg.lstrip('-').partition('=') for arg in argv]
  overrides = {key.removeprefix('config.'): value for key, _, value in parts if key.startswith('config.')}
  is_none = lambda part: part[0].startswith('config.') and part[2] == 'None'
  return ([arg for arg, part in zip(argv, parts, strict=True) if not is_none(part)],
          [key for key, value in overrides.items() if value == 'None'])


def set_none(recipe: ml_collections.ConfigDict, keys: Sequence[str]) -> None:
  """Sets these keys of a recipe to None."""
  for key in keys:
    *parents, name = key.split('.')
    node = recipe
    for parent in parents:
      node = node[parent]
    node[name] = None
