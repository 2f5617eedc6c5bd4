"""A report as one HTML page that needs no network.

All text from logs travels as JSON with every character that could end the script escaped, and scripts put it on the
screen as text nodes, never as markup. The content-security policy runs no script but the page's own, which it knows by
its hash, and forbids any request.
"""

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def render(title: str, plain: Sequence[str], data: Any, script: Path) -> str:
  """The page that `script` draws from `data`.

  Args:
    title: of the browser's window.
    plain: paragraphs for a reader without JavaScript.
    data: lists, dicts, texts and numbers: DATA in the script. Numbers that are none become null.
    script: a .js file, which finds drawing/draw.js and drawing/panels.js before it; a .css file of its name, where
      there is one, adds to drawing/page.css.
  """
  text = json.dumps(finite(data), separators=(',', ':'))
  for character in ('<', '>', '&', '\u2028', '\u2029'):
    text = text.replace(character, f'\\u{ord(character):04x}')
  code = ''.join(path.read_text('utf-8') for path in (_HERE / 'draw.js', _HERE / 'panels.js', script))
  styles = [_HERE / 'page.css', script.with_suffix('.css')]
  parts = {'TITLE': html.escape(title), 'PLAIN': ''.join(f'<p>{html.escape(words)}</p>' for words in plain),
           'DATA': text, 'STYLE': ''.join(path.read_text('utf-8') for path in styles if path.exists()), 'SCRIPT': code,
           'HASH': 'sha256-' + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}
  return re.sub('@([A-Z]+)@', lambda m: parts[m[1]], (_HERE / 'page.html').read_text('utf-8'))


def finite(value: Any) -> Any:
  """Numbers that are none (no interval end, an unreachable loss) as null, which is what JSON has for them."""
  if isinstance(value, dict):
    return {key: finite(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [finite(inner) for inner in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value
