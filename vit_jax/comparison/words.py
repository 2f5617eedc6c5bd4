"""Numbers, counts and text of files, formatted for people."""

from typing import Any

_WIDEST = 60  # characters of a value


def count(n: int, noun: str) -> str:
  """`1 row`, `2 rows`."""
  return f'{n:,} {noun}{"" if n == 1 else "s"}'


def value(x: Any) -> str:
  """A JSON value. Null stands for a number that is not finite, or for no value."""
  text = x if isinstance(x, str) else 'none' if x is None else f'{x:.9g}' if isinstance(x, float) else str(x)
  return text if len(text) <= _WIDEST else text[:_WIDEST] + ' ...'


def ratio(x: float | None) -> str:
  """A difference to two digits, or `-` if there is none."""
  return '-' if x is None else f'{x:.2g}'
