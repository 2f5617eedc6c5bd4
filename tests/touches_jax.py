"""Which tests depend on the version of JAX: those whose files import it, or import a module that does, at any depth.

The pass on the newest JAX runs these alone (-m jax). Imports within functions count, and so do names of modules and of
programs in strings: a file that might touch JAX is taken to do so.
"""

import ast
import functools
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
LIBRARIES = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'tensorstore'}
STARTERS = {'run', 'run_process', 'command'}  # of command_line


@functools.cache
def touches_jax(path: pathlib.Path) -> bool:
  """Whether a Python file imports JAX, or anything that does."""
  seen, waiting = set(), [path]
  while waiting:
    file = waiting.pop()
    if file in seen:
      continue
    seen.add(file)
    for name in imported(file):
      if name.partition('.')[0] in LIBRARIES:
        return True
      waiting += _files(name, file.parent)
  return False


@functools.cache
def imported(path: pathlib.Path) -> frozenset[str]:
  """The names that a file imports or, as 'vit_jax.NAME' or command_line.run('NAME'), has in a string."""
  names, tree = set(), ast.parse(path.read_text())
  for node in ast.walk(tree):  # what is for type checkers alone does not run
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == 'TYPE_CHECKING':
      node.body = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
      names |= {node.module} | {f'{node.module}.{alias.name}' for alias in node.names}
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      names |= {node.value} if node.value.startswith('vit_jax.') else set()
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
      names |= {f'vit_jax.{node.args[0].value}'} if _called(node.func) in STARTERS else set()
  return frozenset(names)


def _called(function):
  return function.attr if isinstance(function, ast.Attribute) else getattr(function, 'id', None)


def _files(name, beside):
  """The files of this repository that `import name` runs."""
  parts = name.split('.')
  for length in range(1, len(parts) + 1):
    for folder in (ROOT, beside, ROOT / 'tests'):
      place = folder.joinpath(*parts[:length])
      yield from (file for file in (place.with_suffix('.py'), place / '__init__.py') if file.is_file())
