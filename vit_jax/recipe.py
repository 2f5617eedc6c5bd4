"""Recipes and sweep files: Python files that are loaded by path or by name, `FILE.py`, `FILE.py:ARG` or `NAME[:ARG]`.

A file declares beside its function which ARGs there are: `ARGS = ('small', 'large')`, or `ARGS = str` for any text.
A NAME is a file of ./configs, else one of those that come with the package.
"""

import functools
import importlib.util
import inspect
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from vit_jax import schema
from vit_jax.errors import UserError, nearest

LENGTHS = ('steps', 'epochs', 'examples', 'flops')  # of a run, one of which is set (`optimisation.schedule`)


def own_folder() -> pathlib.Path:
  """Where the recipes of this package are: inside it where it was installed from a wheel, else beside it."""
  package = pathlib.Path(__file__).parent
  inside = package / 'recipes'  # pyproject.toml puts them there
  return inside if inside.is_dir() else package.parent / 'configs'


def named() -> dict[str, pathlib.Path]:
  """{name: file} of the recipes that can be given by name: those of ./configs come before those of the package."""
  return {path.stem: path for folder in (own_folder(), pathlib.Path('configs')) for path in sorted(folder.glob('*.py'))}


def located(spec: str) -> str:
  """The same with the path of the file where its name is given: quickstart -> configs/quickstart.py."""
  file, colon, argument = spec.partition(':')
  return f'{_located(file)}{colon}{argument}'


def _located(file: str) -> str:
  return os.fspath(named().get(file, file)) if _is_name(file) and not os.path.isfile(file) else file


def _is_name(file):
  return bool(re.fullmatch(r'[\w-]+', file))


def with_path(argv: Sequence[str], flag: str = 'config') -> list[str]:
  """Arguments in which --FLAG NAME and --FLAG=NAME are --FLAG=PATH, which is what the parser of recipes takes."""
  out, rest = [], iter(argv)
  for arg in rest:
    name, equals, value = arg.partition('=')
    if name not in (f'-{flag}', f'--{flag}'):
      out.append(arg)
    elif equals or (value := next(rest, None)) is not None:
      out.append(f'--{flag}={located(value)}')
    else:
      out.append(arg)  # the parser says that its value is missing
  return out


def load(spec: str, flag: str, function: str, kind: type, hint: str) -> Any:
  """What the function of a file `FILE.py` or `FILE.py:ARG` returns, called with ARG where it is given.

  Args:
    spec: the file, by its path or by its name.
    flag: what names it in messages, such as 'config'.
    function: the name of the function.
    kind: the type of what it must return.
    hint: words for where that comes from.

  Raises:
    UserError: no such file, no such function in it, an ARG that it does not declare, an error in the file (its line is
      named), or another type.
  """
  file, _, argument = spec.partition(':')
  path = pathlib.Path(_located(file))
  if not path.is_file():
    if _is_name(file):
      raise UserError(f'--{flag}={spec}: no recipe {file}{nearest(file, named())}')
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


def replaced_lengths(recipe: ml_collections.ConfigDict, given: Mapping[str, Any]) -> list[str]:
  """The keys of the recipe's own length that `given`, {key: value}, replaces by a length of another kind.

  A run has one length, so they are to be 0.
  """
  keys = [f'train.{name}' for name in LENGTHS]
  if not any(given.get(key) for key in keys):
    return []
  own = recipe.get('train') or {}
  return [key for key in keys if own.get(key.partition('.')[2]) and key not in given]


def without_nones(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """(the arguments without each --config.KEY=None, the KEYs that None is the last value of).

  A flag of a number takes numbers only; `set_all` sets these.
  """
  parts = [arg.lstrip('-').partition('=') for arg in argv]
  overrides = {key.removeprefix('config.'): value for key, _, value in parts if key.startswith('config.')}
  is_none = lambda part: part[0].startswith('config.') and part[2] == 'None'
  return ([arg for arg, part in zip(argv, parts, strict=True) if not is_none(part)],
          [key for key, value in overrides.items() if value == 'None'])


def set_all(recipe: ml_collections.ConfigDict, keys: Sequence[str], value: Any) -> None:
  """Sets these keys of a recipe, such as 'model.width', to one value."""
  for key in keys:
    *parents, name = key.split('.')
    functools.reduce(lambda node, parent: node[parent], parents, recipe)[name] = value
