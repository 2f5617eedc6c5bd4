"""What a number was computed by: a digest of the sources that compute it, which comments and formatting do not change.

Covered are the rooms of this package up to training, and modules from elsewhere that a run uses (its recipe, plug-ins).
Not covered are what reads results (laws, pages, plans), and other packages, whose versions run.json has beside it.
"""

import ast
import functools
import hashlib
import inspect
import json
import os
import pathlib
import subprocess
import types
from collections.abc import Callable, Iterable
from typing import Any

# What a step, its data or its evaluation runs through: the rooms up to training, and the ground that they stand on.
ROOMS = ('host', 'digest', 'schema', 'parallel', 'layers', 'models', 'data', 'interop', 'optimisation', 'transfer',
         'objectives', 'training')
_PACKAGE = pathlib.Path(__file__).parent
_CACHE = 'vit_jax/code.json'  # in the user's cache folder: {SHA-256 of a file: digest of its code}
_DIGITS = 12
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code(modules: Iterable[types.ModuleType] = ()) -> str:
  """12 hex digits of the sources that compute: equal for sources that parse to the same program without docstrings.

  Args:
    modules: from elsewhere, such as a recipe's; those of this package are covered anyway.
  """
  own = {path.relative_to(_PACKAGE).as_posix(): path for room in ROOMS for path in _files(room)}
  there = {module.__name__: pathlib.Path(inspect.getfile(module)) for module in modules}
  digests = _digests([*own.values(), *there.values()])
  named = {name: digests[path] for name, path in (own | there).items()}
  return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:_DIGITS]


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
