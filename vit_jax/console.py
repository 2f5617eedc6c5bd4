"""The console of all commands: names in what it prints are never obeyed, by Rich or by the terminal."""

from collections.abc import Iterable, Iterator

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment

from vit_jax.printable import printable


class Console(RichConsole):
  """A Rich console without markup and emoji codes, which spells out control characters (`printable`)."""

  def __init__(self, **options):
    super().__init__(**{'markup': False, 'emoji': False} | options)

  def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
    """Renders anything. Rich's own control codes are segments of another kind, and stay."""
    return _spelled_out(super().render(renderable, options))


def _spelled_out(segments: Iterable[Segment]) -> Iterator[Segment]:
  for segment in segments:
    if segment.control or segment.text.isprintable():
      yield segment
    else:
      yield Segment(printable(segment.text, keep='\n'), segment.style)
