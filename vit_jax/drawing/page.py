"""A report as one self-contained HTML page.

Text from logs is embedded as JSON, with every character escaped that could end the script. Scripts display it as text
nodes, never as markup. The content security policy forbids all requests, and all scripts except the page's own, which
it identifies by a hash.
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


def render(title: str, plain: Sequence[str], data: Any, *scripts: Path) -> str:
  """The text of a page that `scripts` draw from `data`.

  Args:
    title: the title of the page.
    plain: paragraphs for a reader without JavaScript.
    data: lists, dicts, strings and numbers, available as DATA in the scripts. NaN and infinities become null.
    scripts: .js files, which run after drawing/draw.js and drawing/panels.js. .css files of the same names, if any, are
      added to drawing/page.css.
  """
  text = json.dumps(finite(data), separators=(',', ':'))
  for character in ('<', '>', '&', '\u2028', '\u2029'):
    text = text.replace(character, f'\\u{ord(character):04x}')
  code = ''.join(path.read_text('utf-8') for path in (_HERE / 'draw.js', _HERE / 'panels.js', *scripts))
  styles = [_HERE / 'page.css', *(script.with_suffix('.css') for script in scripts)]
  parts = {'TITLE': html.escape(title), 'PLAIN': ''.join(f'<p>{html.escape(words)}</p>' for words in plain),
           'DATA': text, 'STYLE': ''.join(path.read_text('utf-8') for path in styles if path.exists()), 'SCRIPT': code,
           'HASH': 'sha256-' + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}
  return re.sub('@([A-Z]+)@', lambda m: parts[m[1]], (_HERE / 'page.html').read_text('utf-8'))


def finite(value: Any) -> Any:
  """Replaces NaN and infinities (an open interval, an unreachable loss) by None, because JSON has only null."""
  if isinstance(value, dict):
    return {key: finite(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [finite(inner) for inner in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value
