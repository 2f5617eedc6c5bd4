"""What a number was computed by: a digest of the sources that compute it, which comments and formatting do not change.

Covered are the rooms of this package up to training, and plug-ins: the files elsewhere that define the model family of
a run, its objective, source of data or attention kernel, with what they import from beside them. A recipe that only
sets values is covered by the config. Not covered are what reads results (laws, pages, plans), and other packages, whose
versions are in run.json.
"""

import ast
import functools
import hashlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

# What a step, its data or its evaluation runs through: the rooms up to training, and the ground that they stand on.
ROOMS = ('host', 'digest', 'schema', 'parallel', 'layers', 'models', 'data', 'interop', 'optimisation', 'transfer',
         'objectives', 'training')
_PACKAGE = pathlib.Path(__file__).parent
_CACHE = 'vit_jax/code.json'  # in the user's cache folder: {SHA-256 of a file: digest of its code}
_DIGITS = 12
_INSTALLED = ('site-packages', 'dist-packages')  # where a file's neighbours are other people's
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code(files: Iterable[os.PathLike] = ()) -> str:
  """12 hex digits of the sources that compute: equal for sources that parse to the same program without docstrings.

  Args:
    files: from elsewhere (`elsewhere`); those of this package are covered anyway. What is gone is left out.
  """
  own = {path.relative_to(_PACKAGE).as_posix(): path for room in ROOMS for path in _files(room)}
  there = {f'elsewhere/{path.relative_to(_base(path)).as_posix()}': path for path in map(pathlib.Path, files)
           if path.is_file()}
  digests = _digests([*own.values(), *there.values()])
  named = {name: digests[path] for name, path in (own | there).items()}
  return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def elsewhere(*parts: type | Callable) -> list[pathlib.Path]:
  """The files outside of this package that define some classes and functions, and what they import from beside them.
  """
  found, left = {}, [path for part in parts if (path := _defined_in(part)) and _PACKAGE not in path.parents]
  while left:
    path = left.pop()
    if path not in found:
      found[path] = True
      left += _imported(path)
  return sorted(found)


def of_source(source: str) -> str:
  """The digest of one file's program: of its syntax tree, without docstrings, lines and columns."""
  words: list[str] = []
  _spell(ast.parse(source), words.append)
  return hashlib.sha256('\n'.join(words).encode()).hexdigest()


def commit() -> str | None:
  """The commit of the code that runs, with `+` where files differ from it; None outside a checkout."""
  git = lambda *words: subprocess.run(['git', '-C', _PACKAGE, *words], capture_output=True, text=True)
  try:
    head = git('rev-parse', 'HEAD').stdout.strip()
    changed = git('status', '--porcelain', '--untracked-files=no').stdout.strip()
  except OSError:  # no git on this machine
    return None
  return head + ('+' if changed else '') if head else None


def _files(room):
  path = _PACKAGE / room
  return sorted(path.rglob('*.py')) if path.is_dir() else [path.with_suffix('.py')]


def _defined_in(cls):
  """The file of a class or a function, also of one whose module was loaded by its path; None if there is none."""
  while isinstance(cls, functools.partial):
    cls = cls.func
  cls = inspect.unwrap(cls)
  module = sys.modules.get(cls.__module__)
  places = [getattr(module, '__file__', None)] + [
      part.__code__.co_filename for part in (cls, *vars(cls).values()) if inspect.isfunction(part)]
  return next((pathlib.Path(place).resolve() for place in places if place and os.path.isfile(place)), None)


def _base(path):
  """The folder that a file is imported from: the one above its outermost package."""
  folder = path.parent
  while (folder / '__init__.py').is_file():
    folder = folder.parent
  return folder


def _imported(path) -> list[pathlib.Path]:
  """The files that a file imports from its own package, or from the folder that it is in itself."""
  base, out = _base(path), []
  own = path.relative_to(base).parts[0]
  for node in ast.walk(ast.parse(path.read_bytes())):
    if isinstance(node, ast.Import):
      names = [alias.name.split('.') for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      around = path.relative_to(base).parts[:-node.level] if node.level else ()
      module = [*around, *(node.module or '').split('.')] if node.module else [*around]
      names = [module] + [[*module, alias.name] for alias in node.names]
    else:
      continue
    for name in names:
      if base.name not in _INSTALLED or name[:1] == [own]:
        steps = [base.joinpath(*name[:i + 1]) for i in range(len(name))]
        out += [file for step in steps for file in (step.with_suffix('.py'), step / '__init__.py') if file.is_file()]
  return [file.resolve() for file in out if _PACKAGE not in file.resolve().parents]


def _digests(paths):
  """{path: digest}. To parse all files takes a second, so what a file's bytes gave is kept."""
  known = _read_cache()
  out, new = {}, {}
  for path in paths:
    content = path.read_bytes()
    key = hashlib.sha256(content).hexdigest()
    out[path] = new[key] = known.get(key) or of_source(content.decode())
  if new != known:
    _write_cache(new)
  return out


@functools.cache
def _cache_file():
  return pathlib.Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / _CACHE


def _read_cache() -> dict[str, str]:
  try:
    known = json.loads(_cache_file().read_text())
  except (OSError, ValueError):
    return {}
  return known if isinstance(known, dict) and all(isinstance(value, str) for value in known.values()) else {}


def _write_cache(digests):
  """Whole or not at all; a home that cannot be written costs a second at each start."""
  path = _cache_file()
  temporary = path.with_suffix(f'.{os.getpid()}')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary.write_text(json.dumps(digests))
    temporary.replace(path)
  except OSError:
    pass


def _spell(node: Any, say: Callable[[str], None]) -> None:
  """Spells a syntax tree. Fields that are empty are left out: other versions of Python have more of them."""
  say(type(node).__name__)
  for name in node._fields:
    value = getattr(node, name, None)
    if isinstance(value, ast.AST):
      say(name)
      _spell(value, say)
    elif isinstance(value, list):
      if value:
        say(name)
        for item in value[1:] if name == 'body' and _is_docstring(node, value[0]) else value:
          _spell(item, say) if isinstance(item, ast.AST) else say(repr(item))
        say(']')
    elif value is not None:
      say(f'{name} {value!r}')


def _is_docstring(node, first) -> bool:
  """Whether the first statement of a body is its owner's docstring."""
  return (isinstance(node, _DOCUMENTED) and isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
          and isinstance(first.value.value, str))
