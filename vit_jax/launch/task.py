"""What is to be done on one TPU slice, and the names that every system accepts."""

import dataclasses
import re

_LONGEST_LABEL = 40  # 63 is the limit of Kubernetes, of which JobSet's pods take up to '-slice-999-9999-abcde'


@dataclasses.dataclass(frozen=True)
class Task:
  """Programs that run one after the other on one slice (or on several that work as one).

  Each host of the slice runs the same programs. What is done already ends at once when it is run again, so a task that
  was interrupted is simply started anew.
  """
  name: str  # for people: whatever they wrote
  identity: str  # tells it from every other task: a hash
  programs: tuple[tuple[str, ...], ...]  # the arguments of vit_jax.main, in order

  @property
  def label(self) -> str:
    """A DNS label (RFC 1035) of at most 40 characters, different for every identity; also a safe file name."""
    return f'{slug(self.name, _LONGEST_LABEL - 1 - len(self.identity))}-{self.identity}'

  def argv(self, python: str) -> list[str]:
    """The command of every host, as a list that no shell has to take apart.

    Args:
      python: the interpreter.
    """
    if len(self.programs) == 1:
      return [python, '-m', 'vit_jax.main', *self.programs[0]]
    joined = [word for program in self.programs for word in (*program, SEPARATOR)]
    return [python, '-m', 'vit_jax.launch.sequence', *joined[:-1]]


ENVIRONMENT = {'JAX_PLATFORMS': 'tpu,cpu'}  # a host that cannot open its chips ends; it would go on on its CPU
SEPARATOR = 'then'  # between the programs of a sequence: no argument of vit_jax.main, as all of those start with --


def slug(text: str, length: int = 63) -> str:
  """Lower-case letters, digits and single hyphens, a letter first: what is left of any text, or 'run'."""
  words = re.sub(r'[^a-z0-9]+', '-', text.lower()).strip('-')
  return re.sub(r'^(?=[0-9])', 'run-', words)[:length].strip('-') or 'run'
