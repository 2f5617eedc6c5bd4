"""What `law --out` writes: law.json, the figures, and report.html, one page that needs no network.

All text from logs travels as JSON with every character that could end the script escaped, and the page puts it on the
screen as text nodes, never as markup; its content-security policy forbids any request.
"""

import html
import json
import math
import re
from pathlib import Path
from typing import Any

from etils import epath

from vit_jax.scaling import payload as payload_lib
from vit_jax.scaling import plot
from vit_jax.scaling.analysis import Analysis

_PAGE = Path(__file__).parent / 'page'


def write(out: str, groups: dict[str, Analysis], multipliers: list[dict], command: str) -> str:
  """Writes OUT/law.json, law*.png and .svg, report.html; returns their places in words.

  With --group, law.json is {groups: {name: law}, multipliers} and each group has its own figures.
  """
  folder = epath.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  data = [payload_lib.payload(name, analysis) for name, analysis in groups.items()]
  (folder / 'law.json').write_text(json.dumps(finite(law_json(groups, multipliers, command)), indent=1) + '\n')
  (folder / 'report.html').write_text(page(data, multipliers, command))
  figures = []
  for stem, group in zip(stems(groups), data):
    figures += plot.write(folder, stem, group)
  return f'{folder}: report.html, law.json and {len(figures)} figures ({figures[0].name}, ...)'


def law_json(groups: dict[str, Analysis], multipliers: list[dict], command: str) -> dict[str, Any]:
  """The object of law.json."""
  if list(groups) == ['']:
    return {**groups[''].law, 'command': command}
  return {'groups': {name: analysis.law for name, analysis in groups.items()}, 'multipliers': multipliers,
          'command': command}


def stems(names: dict[str, Any]) -> list[str]:
  """File names of the groups' figures: law, or law-NAME with what no file system likes replaced; never two alike."""
  out = []
  for name in names:
    stem = f'law-{re.sub(r"[^A-Za-z0-9._=-]+", "_", name)[:60]}' if name else 'law'
    out.append(stem if stem not in out else f'{stem}-{len(out)}')
  return out


def page(data: list[dict[str, Any]], multipliers: list[dict], command: str) -> str:
  """report.html of the groups' payloads."""
  text = json.dumps(finite({'groups': data, 'multipliers': multipliers, 'command': command}), separators=(',', ':'))
  for character in ('<', '>', '&', '\u2028', '\u2029'):
    text = text.replace(character, f'\\u{ord(character):04x}')
  verdicts = ''.join(f'<p>{html.escape((g["name"] + ": ") if g["name"] else "")}{html.escape(g["law"]["verdict"])}</p>'
                     for g in data)
  parts = {'TITLE': html.escape(data[0]['law']['verdict']), 'VERDICTS': verdicts, 'DATA': text,
           'STYLE': (_PAGE / 'page.css').read_text(),
           'SCRIPT': (_PAGE / 'draw.js').read_text() + (_PAGE / 'page.js').read_text()}
  return re.sub('@([A-Z]+)@', lambda m: parts[m[1]], (_PAGE / 'page.html').read_text())


def finite(value: Any) -> Any:
  """Numbers that are none (no interval end, an unreachable loss) as null, which is what JSON has for them."""
  if isinstance(value, dict):
    return {key: finite(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [finite(inner) for inner in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value
