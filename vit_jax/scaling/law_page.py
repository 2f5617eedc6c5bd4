"""What `law --out` writes: law.json, the figures, and report.html, one page that needs no network."""

import json
import re
from pathlib import Path
from typing import Any

from etils import epath

from vit_jax import goodput
from vit_jax.drawing import page as page_lib
from vit_jax.scaling import payload as payload_lib
from vit_jax.scaling import plot
from vit_jax.scaling.analysis import Analysis

_SCRIPT = Path(__file__).parent / 'law.js'


def write(out: str, groups: dict[str, Analysis], multipliers: list[dict], command: str,
          spent: dict[str, float] | None = None) -> str:
  """Writes OUT/law.json, law*.png and .svg, report.html; returns their places in words.

  The page says where the time of the runs went (`spent`, see `goodput`). With --group, law.json is {groups: {name:
  law}, multipliers}, each group has its own figures, and law-all.png and .svg show them in one.
  """
  folder = epath.Path(out)
  folder.mkdir(parents=True, exist_ok=True)
  data = payload_lib.payloads(groups)
  (folder / 'law.json').write_text(json.dumps(page_lib.finite(law_json(groups, multipliers, command)), indent=1) + '\n')
  (folder / 'report.html').write_text(page(data, multipliers, command, spent))
  figures = plot.write_together(folder, 'law-all', data) if len(data) > 1 else []
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
  out = ['law-all']
  for name in names:
    stem = f'law-{re.sub(r"[^A-Za-z0-9._=-]+", "_", name)[:60]}' if name else 'law'
    out.append(stem if stem not in out else f'{stem}-{len(out)}')
  return out[1:]


def page(data: list[dict[str, Any]], multipliers: list[dict], command: str,
         spent: dict[str, float] | None = None) -> str:
  """report.html of the groups' payloads."""
  verdicts = [(g['name'] + ': ' if g['name'] else '') + g['law']['verdict'] for g in data]
  plain = [*verdicts, 'The figures of this page need JavaScript; the same figures are beside it as PNG and SVG.']
  return page_lib.render(data[0]['law']['verdict'], plain,
                         {'groups': data, 'multipliers': multipliers, 'command': command,
                          'time': goodput.shares(spent or {})}, _SCRIPT)
