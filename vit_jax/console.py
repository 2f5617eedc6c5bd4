"""The console of all commands: names in what it prints are never obeyed, by Rich or by the terminal."""

import os
import sys
from collections.abc import Iterable, Iterator

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from vit_jax.printable import PLAIN_WIDTH, printable


def is_notebook() -> bool:
  """Whether this is a notebook's kernel."""
  ipython = sys.modules.get('IPython')
  return ipython is not None and hasattr(ipython.get_ipython(), 'kernel')


class Console(RichConsole):
  """A Rich console without markup and emoji codes, which spells out control characters (`printable`).

  A terminal or COLUMNS says how wide it is. What is printed elsewhere has 120 columns: Rich's 80 break tables. In a
  notebook it prints as into a file: Rich would make an output of each line, and, as a kernel sets FORCE_COLOR, draw
  bars that never go.
  """

  def __init__(self, **options):
    plain = {'force_terminal': False} if is_notebook() else {}
    super().__init__(**{'markup': False, 'emoji': False, 'force_jupyter': False, 'width': _plain_width(options)}
                     | plain | options)

  def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
    """Renders anything. Rich's own control codes are segments of another kind, and stay."""
    return _spelled_out(super().render(renderable, options))


def _plain_width(options):
  """The width where Rich would find none; None where it finds one."""
  stream = options.get('file') or (sys.stderr if options.get('stderr') else sys.stdout)
  return None if stream.isatty() or os.environ.get('COLUMNS') else PLAIN_WIDTH


def _spelled_out(segments: Iterable[Segment]) -> Iterator[Segment]:
  for segment in segments:
    if segment.control or segment.text.isprintable():
      yield segment
    else:
      yield Segment(printable(segment.text, keep='\n'), segment.style)
