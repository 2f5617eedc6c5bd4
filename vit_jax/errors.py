"""The one exception that a person can put right."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """Bad input: the message says what was wrong, the value it had, and what would be right.

  Entry points print it without a traceback and exit with 1.
  """


def nearest(name: str, known: Iterable[str]) -> str:
  """`; did you mean 'width'?` for a misspelt name, else what is known (the first dozen names)."""
  known = sorted(known)
  if close := difflib.get_close_matches(name, known, n=1, cutoff=0.6):
    return f"; did you mean '{close[0]}'?"
  return f'; known: {", ".join(known[:12])}{", ..." if len(known) > 12 else ""}' if known else ''
