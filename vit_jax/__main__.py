"""Every command under one name: vit-jax COMMAND ... is python -m vit_jax.MODULE ...

  vit-jax                   says what there is
  vit-jax COMMAND --help    the flags of a command
"""

import os
import runpy
import sys

import vit_jax
from vit_jax.errors import nearest

# What there is, in the order in which a newcomer meets it: {command: (module, what it does)}.
COMMANDS = {
    'list': ('listing', 'what there is: recipes, model families and their sizes, sources of data'),
    'samples': ('samples', 'write real pictures into folders, to try predict and fine-tuning on'),
    'train': ('main', 'train a recipe, or score and show what it trained: vit-jax train --config=quickstart'),
    'predict': ('predict', 'classify pictures: vit-jax predict RUN PICTURE_OR_FOLDER...'),
    'search': ('search', 'find pictures by a text: vit-jax search RUN FOLDER --text=..'),
    'sweep': ('sweep', 'train many runs from one file: vit-jax sweep --sweep=digits_law'),
    'law': ('law', 'fit a scaling law to runs or tables: vit-jax law RUNS --form=power --x=examples'),
    'plan': ('plan', 'memory, time and cost on TPUs that are not here'),
    'convert': ('convert', 'weights from and for other programs, bundles, StableHLO'),
    'prune': ('prune', 'remove heads and MLP units of a trained model'),
    'compare': ('compare', 'find where two runs part'),
    'prepare': ('data.prepare', 'download and prepare a TFDS data set'),
    'completion': ('completion', 'completion for a shell: eval "$(vit-jax completion bash)"'),
}


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
    sys.argv = [module, *arguments]
    if os.getcwd() not in sys.path:
      sys.path.insert(0, os.getcwd())  # as `python -m` does: families and sweeps may be modules here
    runpy.run_module(module, run_name='__main__', alter_sys=True)
  else:
    print(f'error: {command!r}: no such command{nearest(command, COMMANDS)}', file=sys.stderr)
    sys.exit(1)


if __name__ == '__main__':
  main()
