"""What functions return for a notebook: it shows itself as the command would print it, as text and as HTML."""

import dataclasses
import io
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from rich import box
from rich.table import Table as RichTable

from vit_jax.console import Console
from vit_jax.printable import PLAIN_WIDTH, printable

_MOST_ROWS = 20  # of a table that is shown; all are there
_HTML = '<pre style="font-family: ui-monospace, monospace; line-height: 1.25; white-space: pre">{code}</pre>'


class Shown:
  """Has a text and an HTML form, both of what `show` prints to a console."""

  def show(self, console: Console) -> None:
    """Prints it."""
    raise NotImplementedError

  def __repr__(self) -> str:
    return self._recorded().export_text(styles=False).rstrip()

  def _repr_html_(self) -> str:
    return self._recorded().export_html(inline_styles=True, code_format=_HTML)

  def _recorded(self):
    console = Console(file=io.StringIO(), record=True, width=PLAIN_WIDTH, highlight=False)
    self.show(console)
    return console


@dataclasses.dataclass(frozen=True, repr=False)
class Table(Shown):
  """Rows of named values: table['loss'] is a column as an array, table.rows[0] a row as a dict."""
  rows: tuple[dict[str, Any], ...]

  @classmethod
  def of(cls, rows: Iterable[Mapping[str, Any]]) -> 'Table':
    return cls(tuple(dict(row) for row in rows))

  @property
  def columns(self) -> list[str]:
    """The names of all columns, in the order in which rows have them."""
    return list(dict.fromkeys(name for row in self.rows for name in row))

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, name: str) -> np.ndarray:
    """A column, [n]; numbers that a row does not have are NaN, other values None."""
    if name not in self.columns:
      raise KeyError(name)
    values = [row.get(name) for row in self.rows]
    if all(value is None or isinstance(value, (int, float)) for value in values):
      return np.array([np.nan if value is None else value for value in values])
    return np.array(values, object)

  def to_pandas(self):
    """A pandas.DataFrame, where pandas is installed."""
    import pandas
    return pandas.DataFrame.from_records(list(self.rows), columns=self.columns)

  def write(self, path: os.PathLike) -> None:
    """Writes the rows as JSON lines."""
    with open(path, 'w') as file:
      file.writelines(json.dumps(row, default=lambda value: value.item()) + '\n' for row in self.rows)

  def show(self, console: Console) -> None:
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in self.columns:
      is_text = any(isinstance(row.get(name), str) for row in self.rows)
      table.add_column(printable(name), justify='left' if is_text else 'right', overflow='fold')
    for row in self.rows[:_MOST_ROWS]:
      table.add_row(*(_cell(row.get(name)) for name in self.columns))
    if len(self.rows) > _MOST_ROWS:
      table.caption = f'{_MOST_ROWS} of {len(self.rows):,} rows'
    console.print(table)


def _cell(value):
  if value is None:
    return ''
  return printable(f'{value:,}' if isinstance(value, int) and not isinstance(value, bool) else
                   f'{value:.4g}' if isinstance(value, float) else str(value))
