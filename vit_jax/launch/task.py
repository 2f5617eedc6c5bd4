"""The work of one TPU slice, with a name that every cluster accepts."""

import dataclasses
import re
from collections.abc import Sequence

_LONGEST_LABEL = 40  # Kubernetes allows 63, from which JobSet's pods need up to '-slice-999-9999-abcde'


@dataclasses.dataclass(frozen=True)
class Task:
  """Programs that run in sequence on one slice, or on several slices that work as one.

  Every host runs the same programs. A finished program exits at once when it is run again, so an interrupted task can
  simply be restarted.
  """
  name: str  # any text, for display
  identity: str  # a hash that distinguishes it from all other tasks
  programs: tuple[tuple[str, ...], ...]  # the arguments of vit_jax.main, in order

  @property
  def label(self) -> str:
    """A DNS label (RFC 1035) of at most 40 characters, unique to the identity; also a safe file name."""
    return f'{slug(self.name, _LONGEST_LABEL - 1 - len(self.identity))}-{self.identity}'

  def argv(self, python: str) -> list[str]:
    """The command of each host as a list of arguments, run by the interpreter `python`."""
    if len(self.programs) == 1:
      return [python, '-m', 'vit_jax.main', *self.programs[0]]
    joined = [word for program in self.programs for word in (*program, SEPARATOR)]
    return [python, '-m', 'vit_jax.launch.sequence', *joined[:-1]]


def first(arguments: Sequence[str], python: str, without_data: bool = False) -> list[str]:
  """The command that does what a run does before it trains, and says what it found, perhaps without the data."""
  alone = [word for word in arguments if not word.startswith(('--distributed', '--trunk=', '--branch_steps='))]
  return [python, '-m', 'vit_jax.main', *alone, '--preflight=without_data' if without_data else '--preflight']


def preparation(source: str, folder: str, python: str, uv: Sequence[str]) -> list[str]:
  """The command that prepares and indexes a data source in a folder of the hosts.

  TFDS writes with TensorFlow, which runs do not need: uv installs it for this command.
  """
  kind, _, name = source.partition(':')
  if kind == 'tfds':
    start, what = [*uv, 'run', '--quiet', '--extra', 'prepare', 'python'], [f'--name={name.replace(":", "/", 1)}']
  else:
    start, what = [python], [f'--source={source}', '--index']
  return [*start, '-m', 'vit_jax.data.prepare', *what, f'--data_dir={folder}']


def rehearsed_on(devices: int) -> dict[str, str]:
  """The environment in which one CPU stands for all devices of a run, for `first`."""
  return {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}'}


ENVIRONMENT = {'JAX_PLATFORMS': 'tpu,cpu'}  # a host without access to its chips fails instead of using its CPU
SEPARATOR = 'then'  # between programs; not an argument of vit_jax.main, all of which start with --


def slug(text: str, length: int = 63) -> str:
  """A text reduced to lower-case letters, digits and single hyphens, starting with a letter; 'run' if none is left."""
  words = re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')
  return re.sub(r'^(?=[0-9])', 'run-', words)[:length].strip('-') or 'run'
