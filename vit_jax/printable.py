"""Text from files, data and other people, made safe for a terminal.

A terminal obeys control characters: ESC sequences move the cursor, rename the window or fill the clipboard (OSC 52), a
carriage return overwrites the line, and bidirectional overrides reorder it. All of them can be in a name.
"""

import sys
from typing import TextIO

PLAIN_WIDTH = 120  # columns of what is printed to a file or a pipe


def printable(text: str, keep: str = '') -> str:
  """The text with every character that is not printable spelled out, such as `\\x1b`, except those in `keep`.

  Spelled out are control and format characters, unusual separators, and bytes that are not UTF-8 (surrogates).
  """
  if text.isprintable():
    return text
  return ''.join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def say(text: str, file: TextIO | None = None) -> None:
  """Prints text, of which only line breaks reach the terminal as they are."""
  print(printable(text, keep='\n'), file=file or sys.stdout, flush=True)
