"""The output of `law --out`: law.json, the figures, and report.html, a self-contained page."""

import json
import re
from pathlib import Path
from typing import Any

from etils import epath

from vit_jax import durable, goodput
from vit_jax.drawing import page as page_lib
from vit_jax.scaling import payload as payload_lib
from vit_jax.scaling import plot
from vit_jax.scaling.analysis import Analysis

FIGURE = Path(__file__).with_name('law_figure.js')  # draws the law of a payload
_SCRIPTS = tuple(Path(__file__).with_name(name) for name in ('law_answers.js', 'law.js'))


def write(out: str, groups: dict[str, Analysis], multipliers: list[dict], command: str,
          spent: dict[str, float] | None = None, more: dict[str, Any] | None = None) -> str:
  """Writes law.json, report.html and the figures law*.png and law*.svg.

  Args:
    out: the folder.
    groups: {name: analysis}. With one group called '', law.json is its law. Otherwise law.json is {groups: {name: law},
      multipliers}, each group has its own figures if they are at most `payload.FULL`, and law-all.png and law-all.svg
      show all groups.
    multipliers: rows of `analysis.multipliers`.
    command: the command that reproduces the law.
    spent: {kind: seconds}, how the runs spent their time (see `goodput`), for the page.
    more: more entries of law.json.

  Returns:
    A message that lists what was written.
  """
  folder = epath.Path(out)
  data = payload_lib.payloads(groups)
  law = page_lib.finite(law_json(groups, multipliers, command) | (more or {}))
  durable.write(folder / 'law.json', json.dumps(law, indent=1) + '\n')
  durable.write(folder / 'report.html', page(data, multipliers, command, spent))
  figures = plot.write_together(folder, 'law-all', data) if len(data) > 1 else []
  for stem, group in zip(stems(groups), data if len(data) <= payload_lib.FULL else []):
    figures += plot.write(folder, stem, group)
  return f'{folder}: report.html, law.json and {len(figures)} figures ({figures[0].name}, ...)'


def law_json(groups: dict[str, Analysis], multipliers: list[dict], command: str) -> dict[str, Any]:
  """The object of law.json."""
  if list(groups) == ['']:
    return {**groups[''].law, 'command': command}
  return {'groups': {name: analysis.law for name, analysis in groups.items()}, 'multipliers': multipliers,
          'command': command}


def stems(names: dict[str, Any]) -> list[str]:
  """Unique file names, without suffix, of the groups' figures: law, or law-NAME with unsafe characters replaced."""
  out = ['law-all']
  for name in names:
    stem = f'law-{re.sub(r"[^A-Za-z0-9._=-]+", "_", name)[:60]}' if name else 'law'
    out.append(stem if stem not in out else f'{stem}-{len(out)}')
  return out[1:]


def page(data: list[dict[str, Any]], multipliers: list[dict], command: str,
         spent: dict[str, float] | None = None) -> str:
  """The text of report.html for the groups' payloads."""
  said = [row['words'] for row in multipliers]
  said += [(g['name'] + ': ' if g['name'] else '') + g['law']['verdict'] for g in data]
  plain = [*said, 'The figures on this page need JavaScript. The same figures are in this folder as PNG and SVG.']
  return page_lib.render(said[0], plain,
                         {'groups': short(data), 'multipliers': multipliers, 'command': command,
                          'time': goodput.shares(spent or {})}, FIGURE, *_SCRIPTS)


def short(value: Any) -> Any:
  """Rounds numbers to six digits, more than the page shows."""
  if isinstance(value, dict):
    return {key: short(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [short(inner) for inner in value]
  return float(f'{value:.6g}') if isinstance(value, float) else value
