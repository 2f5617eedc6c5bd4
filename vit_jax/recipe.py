"""Recipes and sweep files: Python files that are loaded by path, `FILE.py` or `FILE.py:ARG`."""

import importlib.util
import pathlib
import types

import ml_collections

from vit_jax.errors import UserError, nearest


def load_module(spec: str, flag: str) -> tuple[types.ModuleType, str]:
  """The module of a file `FILE.py` or `FILE.py:ARG`, and ARG ('' without).

  Args:
    spec: the file.
    flag: what names it in messages, such as 'config'.

  Raises:
    UserError: no such file.
  """
  file, _, argument = spec.partition(':')
  path = pathlib.Path(file)
  if not path.is_file():
    near = nearest(path.name, [p.name for p in path.parent.glob('*.py')]) if path.parent.is_dir() else ''
    raise UserError(f'--{flag}={spec}: no file {file}{near}')
  module_spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(module_spec)
  module_spec.loader.exec_module(module)
  return module, argument


def load_recipe(spec: str) -> ml_collections.ConfigDict:
  """The ConfigDict of a recipe `FILE.py` or `FILE.py:ARG`.

  Raises:
    UserError: no such file, no get_config in it, or a key in it that does not exist.
  """
  try:
    module, argument = load_module(spec, 'config')
    return module.get_config(argument) if argument else module.get_config()
  except (AttributeError, KeyError, TypeError) as error:  # ConfigDict's words for a misspelt key or a wrong type
    raise UserError(f'{spec.partition(":")[0]}: {error}') from error


def check_key(recipe: ml_collections.ConfigDict, key: str) -> None:
  """Raises a UserError that names the nearest key where `recipe` has no `key`, such as 'model.width'."""
  node, path = recipe, 'config'
  for part in key.split('.'):
    if not hasattr(node, 'keys') or part not in node:
      known = node.keys() if hasattr(node, 'keys') else ()
      raise UserError(f'--config.{key}: {path} has no key {part!r}{nearest(part, known)}')
    node, path = node[part], f'{path}.{part}'
