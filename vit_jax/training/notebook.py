"""A run in a notebook: it prints into one output of the cell, whose last line, how far the run is, is replaced."""

import io

from vit_jax.console import Console
from vit_jax.training.display import Display


class NotebookDisplay(Display):
  """A display for a notebook's cell."""

  def __init__(self):
    self._cell = _Cell()
    super().__init__(Console(file=self._cell, highlight=False))

  def progress(self, text: str) -> None:
    self._cell.last_line(text)

  def stop(self) -> None:
    self._cell.last_line('')


class _Cell(io.TextIOBase):
  """A file that is one output of a cell: its text, and a last line that can be replaced."""

  def __init__(self):
    from IPython.display import display
    self._text = self._last = ''
    self._output = display({'text/plain': ''}, raw=True, display_id=True)

  def write(self, text: str) -> int:
    self._text += text
    self._show()
    return len(text)

  def last_line(self, text: str) -> None:
    self._last = text
    self._show()

  def _show(self):
    self._output.update({'text/plain': self._text + self._last}, raw=True)
