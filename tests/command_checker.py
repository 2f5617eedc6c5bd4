"""Parses command lines as their programs do, and looks into recipes and sweeps, without starting anything.

  python tests/command_checker.py < commands.json

Reads a list of [module, arguments] and prints {index: what is wrong}. Each is parsed in a child of its own: programs
declare flags of the same names, and parsed flags stay.
"""

import importlib
import inspect
import json
import os
import sys
import tempfile

from absl import flags

from vit_jax import cli, config
from vit_jax.sweeps import spec
from vit_jax.training import config as run_config


def look(*_):
  """In place of the program's main: its flags are parsed."""
  given = flags.FLAGS.flag_values_dict()
  if given.get('config') is not None:
    run_config.cast(given['config'])
  if given.get('sweep') is not None:
    config.load_recipe(spec.load(given['sweep']).recipe)


def complaint(module: str, arguments: list[str]) -> str:
  """What is printed before the command ends with another code than 0; '' where all is well."""
  with tempfile.TemporaryFile('w+') as said:
    if child := os.fork():
      _, status = os.waitpid(child, 0)
      said.seek(0)
      return said.read().strip() or 'it ends without a word' if status else ''
    os.dup2(said.fileno(), 1)
    os.dup2(said.fileno(), 2)
    sys.argv = [module, *arguments]
    code = 1
    try:
      program = importlib.import_module(module)
      cli.run(look, positional=bool(inspect.signature(program.main).parameters))
      code = 0
    except SystemExit as end:
      code = end.code or 0
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code)


def main():
  found = {i: complaint(module, arguments) for i, (module, arguments) in enumerate(json.load(sys.stdin))}
  json.dump({i: text for i, text in found.items() if text}, sys.stdout)


if __name__ == '__main__':
  main()
