"""Every command under one name: vit-jax COMMAND ... is python -m vit_jax.MODULE ...

  vit-jax                   says what there is
  vit-jax COMMAND --help    the flags of a command
"""

import os
import runpy
import sys

import vit_jax
from vit_jax import commands
from vit_jax.commands import COMMANDS
from vit_jax.errors import nearest


def overview() -> str:
  """What is printed without a command."""
  rows = [f'  {name:<12}{what}' for name, (_, what) in COMMANDS.items()]
  return '\n'.join([f'vit-jax {vit_jax.__version__}: Vision Transformers and scaling laws in JAX', '',
                    'usage: vit-jax COMMAND [ARGUMENTS]', '', *rows, '',
                    'vit-jax COMMAND --help shows the flags of a command. From Python: import vit_jax; '
                    'help(vit_jax)'])


def main() -> None:
  """Runs a command, as `python -m` does; prints what there is where none is given."""
  command, *arguments = sys.argv[1:] or ['--help']
  if command in ('--help', '-h', 'help'):
    print(overview())
  elif command == '--version':
    print(vit_jax.__version__)
  elif command in COMMANDS:
    module = f'vit_jax.{COMMANDS[command][0]}'
    commands.start('python -m vit_jax' if sys.argv[0].endswith('__main__.py') else 'vit-jax')
    sys.argv = [module, *arguments]
    if os.getcwd() not in sys.path:
      sys.path.insert(0, os.getcwd())  # as `python -m` does: families and sweeps may be modules here
    runpy.run_module(module, run_name='__main__', alter_sys=True)
  else:
    print(f'error: {command!r}: no such command{nearest(command, COMMANDS)}', file=sys.stderr)
    sys.exit(1)


if __name__ == '__main__':
  main()
