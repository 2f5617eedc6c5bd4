"""A room imports only from floors below its own, and the heavy libraries stay out of a run."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FLOORS = [  # a module imports from lower floors and from its own room
    {'errors', 'exits', 'host', 'provenance', 'printable', 'durable', 'commands'},
    {'buckets', 'options', 'console', 'plugins', 'usage'},
    {'digest', 'goodput', 'schema', 'records', 'parallel', 'cost', 'drawing'},
    {'checkpoint', 'recipe', 'printed_config', 'shown', 'tracking'},
    {'layers', 'launch', 'scaling'},
    {'models', 'data'},
    {'interop', 'optimisation', 'survival'},
    {'transfer'},
    {'objectives'},
    {'training'},
    {'rehearsal', 'sweeps', 'pruning', 'inspection', 'comparison'},
    {'config', 'cli', 'testing', '__main__', 'law_options'},
    {'law_fit'},
    {'outcomes'},
    {'sweep_launch', 'sweep_preflight'},
    {'main', 'plan', 'sweep', 'board', 'law', 'predict', 'search', 'prune', 'convert', 'compare', 'listing', 'samples',
     'completion', 'api'},
]
# Thin programs inside a room: they use how every entry point starts and ends, or become one.
PROGRAMS = {'data/prepare.py', 'sweeps/child.py'}


def _floor(room):
  return next(i for i, rooms in enumerate(FLOORS) if room in rooms)


def _imports(path):
  """Rooms of vit_jax that a file imports, wherever in the file; by a string too, as importlib and runpy do."""
  for node in ast.walk(ast.parse(path.read_text())):
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith('vit_jax'):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    if isinstance(node, ast.Call):
      strings = [word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
      names = [word for word in strings if re.fullmatch(r'vit_jax(\.\w+)+', word)]
    for name in names:
      if name.startswith('vit_jax.'):
        yield name.split('.')[1]


def test_rooms_import_only_from_floors_below():
  wrong = []
  for path in (ROOT / 'vit_jax').rglob('*.py'):
    relative = path.relative_to(ROOT / 'vit_jax')
    room = relative.parts[0].removesuffix('.py')
    if room == '__init__' or str(relative) in PROGRAMS:
      continue
    for other in set(_imports(path)) - {room}:
      if _floor(other) >= _floor(room):
        wrong.append(f'{relative} imports {other}')
  assert not wrong, wrong


def test_every_room_has_a_floor():
  for path in (ROOT / 'vit_jax').iterdir():
    name = path.name.removesuffix('.py')
    if not name.startswith('__') and name != 'py.typed':
      assert any(name in rooms for rooms in FLOORS), name


@pytest.mark.parametrize('module', ['vit_jax.main', 'vit_jax.training.loop', 'vit_jax.data.pipeline'])
def test_no_tensorflow_and_no_torch(module):
  code = f'import sys, {module}; print([m for m in ("tensorflow", "torch") if m in sys.modules])'
  assert subprocess.check_output([sys.executable, '-c', code], text=True, cwd=ROOT).strip() == '[]'
