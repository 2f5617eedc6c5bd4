"""The exception for errors that the user can correct."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """An error in the input. The message names what is wrong, the value found, and what was expected.

  Commands print the message without a traceback and exit with 1.
  """


def nearest(name: str, known: Iterable[str]) -> str:
  """A suffix for messages: `; did you mean 'width'?` for a misspelled name, else the first 12 known names."""
  known = sorted(known)
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
  if not close:  # in capitals, perhaps
    spelled = {each.lower(): each for each in known}
    close = [spelled[each] for each in difflib.get_close_matches(name.lower(), spelled, n=1, cutoff=0.6)]
  if close:
    return f"; did you mean '{close[0]}'?"
  return f'; known: {", ".join(known[:12])}{", ..." if len(known) > 12 else ""}' if known else ''
