"""The commands of this package, and how a command is written in messages."""

# In the order in which a newcomer meets them: {command: (module, what it does)}.
COMMANDS = {
    'list': ('listing', 'what there is: recipes, model families and their sizes, sources of data'),
    'samples': ('samples', 'write real pictures into folders, to try predict and fine-tuning on'),
    'train': ('main', 'train a recipe, or score and show what it trained: vit-jax train --config=quickstart'),
    'predict': ('predict', 'classify pictures: vit-jax predict RUN PICTURE_OR_FOLDER...'),
    'search': ('search', 'find pictures by a text: vit-jax search RUN FOLDER --text=...'),
    'sweep': ('sweep', 'train many runs from one file: vit-jax sweep --sweep=digits_law'),
    'board': ('board', 'one page of many runs: table, curves, the law so far: vit-jax board RUNS'),
    'law': ('law', 'fit a scaling law to runs or tables: vit-jax law RUNS --form=power --x=examples'),
    'plan': ('plan', 'memory, time and cost on TPUs or GPUs that are not here'),
    'convert': ('convert', 'weights from and for other programs, bundles, StableHLO'),
    'prune': ('prune', 'remove heads and MLP units of a trained model'),
    'compare': ('compare', 'find where two runs part'),
    'prepare': ('data.prepare', 'download and prepare a TFDS data set'),
    'completion': ('completion', 'completion for a shell: eval "$(vit-jax completion bash)"'),
}
_started_as: list[str] = []


def start(program: str) -> None:
  """Commands are written from now on as those of one program, such as 'vit-jax' or 'python -m vit_jax'."""
  _started_as[:] = [program]


def written(command: str, arguments: str = '') -> str:
  """A command as it is typed here: as vit-jax COMMAND where the program was started so, else as python -m MODULE."""
  program = f'{_started_as[0]} {command}' if _started_as else f'python -m vit_jax.{COMMANDS[command][0]}'
  return f'{program} {arguments}'.rstrip()
