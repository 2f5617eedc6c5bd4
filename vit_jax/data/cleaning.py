"""What is done to a text before it becomes tokens: the ways of SigLIP's and OpenCLIP's tokenizers."""

import html
import re
import string
from collections.abc import Callable
from typing import Literal

Kind = Literal['none', 'lower', 'plain', 'plain_lower', 'whitespace', 'whitespace_lower', 'canonical']


def _plain(text: str) -> str:
  """Without punctuation and doubled spaces."""
  return re.sub(r'\s+', ' ', text.translate(str.maketrans('', '', string.punctuation))).strip()


def _unescaped(text: str) -> str:
  """With the characters that HTML entities stand for; some captions are escaped twice."""
  return html.unescape(html.unescape(text))


def _whitespace(text: str) -> str:
  return ' '.join(_unescaped(text).split())


CLEAN: dict[Kind, Callable[[str], str]] = {
    'none': str,
    'lower': str.lower,
    'plain': _plain,
    'plain_lower': lambda text: _plain(text).lower(),
    'whitespace': _whitespace,
    'whitespace_lower': lambda text: _whitespace(text).lower(),
    'canonical': lambda text: _plain(_unescaped(text).replace('_', ' ')).lower(),
}
