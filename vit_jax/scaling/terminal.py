"""The terminal output of `law`."""

import collections
from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from vit_jax.console import Console
from vit_jax.printable import printable
from vit_jax.scaling.analysis import Analysis
from vit_jax.scaling.design import Design
from vit_jax.scaling.shared import Together
from vit_jax.scaling.target import asked, describe
from vit_jax.scaling.verdict import number

SEPARATE = 8  # groups whose laws are printed in full
_WORDS = ('coefficient', 'run', 'group', 'form', 'exponents', 'target', 'metric', 'registered', '')
_COLORS = {'green': 'green', 'amber': 'yellow', 'red': 'bold red'}


def show_fitted(console: Console, groups: dict[str, Analysis], together: Together | None = None,
                multipliers: Iterable[dict] = ()) -> None:
  """Prints the laws of groups, what they share, what they predict, and how they compare."""
  show_all(console, groups)
  if together:
    show_shared(console, together.summary)
  for name, group in groups.items():
    if 'then' in group.law:
      show_link(console, name, group.law['then'])
  if rows := asked(groups):
    show_targets(console, rows)
  for row in multipliers:
    console.print(row['words'], highlight=False)


def show_all(console: Console, groups: dict[str, Analysis]) -> None:
  """Prints the law of each group, or, of more than SEPARATE groups, a table with a row for each."""
  if len(groups) <= SEPARATE:
    for name, analysis in groups.items():
      show(console, name, analysis)
    return
  table = _table(f'{len(groups)} groups; law.json and the page have all of each', 'group', 'points', 'form',
                 'exponents', 'sigma', 'held out', 'lights')
  for name, analysis in groups.items():
    law, held = analysis.law, analysis.law['holdout']
    exponents = [f'{key} {number(law["coefficients"][key], 3)}' for key in law['diagnostics']['exponents']]
    table.add_row(printable(name)[:26], str(law['n']), law['form'], ', '.join(exponents),
                  f'{100 * law["diagnostics"]["sigma"]:.2g}%', f'{100 * held["rmsle"]:.2g}%' if held else '-',
                  _short_lights(law))
  console.print(table)
  console.print(Text('lights: predictive, calibrated, identified; g green, a amber, r red'), highlight=False)


def _short_lights(law):
  """The three lights as letters, each in its color."""
  out = Text()
  for light in law['lights'].values():
    out.append(light['light'][0], style=_COLORS[light['light']])
  return out


def show(console: Console, name: str, analysis: Analysis) -> None:
  """Prints one group's law and its verdict. Names from logs are printed literally, without markup."""
  law = analysis.law
  if name:
    console.rule(Text(name))
  console.print(Text(law['diagnostics']['equation'], style='bold'), highlight=False)
  console.print(Text(_fit_line(law)), highlight=False)
  if analysis.selection:
    console.print(Text(analysis.selection.describe()), highlight=False)
  console.print(_coefficients(law))
  if law['holdout']:
    console.print(_holdout(law['holdout']))
  if law['compute_optimal']:
    console.print(_optimal(law['compute_optimal']))
  for note in [*analysis.points.describe_dropped(), *law['notes']]:
    console.print(Text('note: ' + note), highlight=False)
  for warning in law['warnings']:
    console.print(Text('warning: ' + warning, style='yellow'), highlight=False)
  for light, found in law['lights'].items():
    console.print(Text.assemble(f'{light}: ', (found['light'], _COLORS[found['light']]), f', {found["reason"]}'),
                  highlight=False)
  console.print(Text('verdict: ' + law['verdict'], style='bold'), highlight=False)


def show_shared(console: Console, summary: dict) -> None:
  """Prints the coefficients that groups share, and whether each differs between them (see `shared`)."""
  table = _table('fitted together', 'coefficient', 'shared value', '95% interval', 'p of "differs"')
  for test in summary['tests']:
    found = summary['coefficients'].get(test['name'])
    table.add_row(test['name'], number(found['value']) if found else 'separate', _range(found and found['ci95']),
                  test['why'] if test['p'] is None else f'{test["p"]:.2g}')
  console.print(table)
  console.print(Text(f'fitted together: {summary["words"]}'), highlight=False)
  for warning in summary['warnings']:
    console.print(Text('warning: ' + warning, style='yellow'), highlight=False)


def show_targets(console: Console, rows: list[dict]) -> None:
  """Prints predictions at targets (see `target.predict`)."""
  groups = any(row['group'] for row in rows)
  table = _table('predictions (with 95% intervals of the law and of a new run)', *(['group'] if groups else []),
                 'target', 'metric', 'predicted', 'law', 'new run')
  for row in rows:
    table.add_row(*([printable(row['group'])] if groups else []), describe(row['target']).replace(',', '\n'),
                  row['metric'], number(row['predicted']), _range(row['ci95']), _range(row['ci95_run']))
  console.print(table)


def show_link(console: Console, name: str, summary: dict) -> None:
  """Prints the law of a second metric (see `chain`)."""
  law, metric = summary['law'], summary['metric']
  console.print(Text(f'{name + ": " if name else ""}then {law["diagnostics"]["equation"]}', style='bold'),
                highlight=False)
  console.print(Text(_fit_line(law)), highlight=False)
  console.print(_coefficients(law))
  if summary['holdout']:
    held = summary['holdout']
    table = _table(f'held out, {metric} through both laws; RMSLE {number(held["rmsle"])}', 'run', 'measured',
                   'predicted', 'error')
    for row in held['rows'][-12:]:
      table.add_row(printable(row['run'])[:26], number(row['measured']),
                    _with_range(row['predicted'], row['ci95_run']),
                    f'{100 * (row["predicted"] / row["measured"] - 1):+.2f}%')
    console.print(table)
  if summary['compute_optimal']:
    table = _table(f'compute-optimal {metric}, through both laws', 'FLOPs', 'predicted', 'new run')
    for row in summary['compute_optimal']:
      table.add_row(number(row['flops']), _with_range(row['predicted'], row['ci95']), _range(row['ci95_run']))
    console.print(table)
  for warning in summary['warnings']:
    console.print(Text('warning: ' + warning, style='yellow'), highlight=False)


def show_design(console: Console, found: Design, equal_grid: float) -> None:
  """Prints the runs of a design and what they are expected to give (see `design`)."""
  table = _table('the runs that narrow the target most', 'N', 'seeds', 'D of each', 'FLOPs of all')
  for trunk, seeds in collections.Counter(found.trunks).items():
    table.add_row(number(trunk.params, 3), str(seeds), ', '.join(number(d, 3) for d in trunk.examples),
                  number(seeds * trunk.flops, 3))
  console.print(table)
  for name, (low, high) in found.coefficients.items():
    console.print(Text(f'{name} is expected within {number(low, 3)} .. {number(high, 3)}'), highlight=False)
  for words in found.missing:
    console.print(Text('warning: ' + words, style='yellow'), highlight=False)
  grid = f'; a grid of equal FLOPs gives a factor of {equal_grid:.4g}' if equal_grid == equal_grid else ''
  console.print(Text(f'design: {found.describe()} (a factor of {found.after:.4g}{grid})', style='bold'),
                highlight=False)


def show_score(console: Console, found: dict) -> None:
  """Prints the grades of registered predictions, oldest first, with the share inside so far (see `registry`)."""
  if found['rows']:
    table = _table('registered predictions', 'registered', 'run', 'target', 'metric', 'predicted', 'measured', 'error',
                   '', 'so far')
    for n, row in enumerate(found['rows'], 1):
      inside = sum(other['inside'] for other in found['rows'][:n])
      table.add_row(row['date'][:10], printable(row['run'])[:26], row['target'].replace(',', '\n'), row['metric'],
                    _with_range(row['predicted'], row['ci95_run']), number(row['measured']),
                    f'{100 * row["error"]:+.2f}%', 'inside' if row['inside'] else Text('outside', style='bold red'),
                    f'{inside} of {n}')
    console.print(table)
  for row in found['waiting']:
    console.print(Text(f'waiting: {row["metric"]} at {row["target"]} (registered {row["date"][:10]}, {row["file"]})'),
                  highlight=False)
  console.print(Text('calibration: ' + found['calibration']['words'], style='bold'), highlight=False)


def _fit_line(law):
  objective, d = law['objective'], law['diagnostics']
  name = objective['name'] + (f', delta {objective["delta"]:g}' if 'delta' in objective else '')
  ends = f'{d["starts_ended_here"]} of the refined ones converged to this optimum'
  return (f'{law["n"]} points; {name} (summed); {d["starts"]} starts, {ends}; relative gradient {d["gradient"]:.1g}; '
          f'condition number {d["condition"]:.3g}')


def _table(title, *names):
  table = Table(title=title, title_justify='left', box=box.SIMPLE_HEAD, pad_edge=False)
  for name in names:
    table.add_column(name, justify='left' if name in _WORDS else 'right')
  return table


def _range(interval):
  return f'{number(interval[0], 3)} .. {number(interval[1], 3)}' if interval else '-'


def _with_range(value, interval):
  """The value above its interval, on two lines, so that tables fit into 80 columns."""
  return number(value) + (f'\n{_range(interval)}' if interval else '')


def _coefficients(law):
  table, unidentified = _table(None, 'coefficient', 'value', '95% interval'), law['not_identified']
  for name, value in law['coefficients'].items():
    interval = (law['ci95'] or {}).get(name)
    table.add_row(name, 'not identified' if name in unidentified else number(value), _range(interval))
  return table


def _holdout(held):
  last = held['rows'][0]['persistence']
  title = (f'held out (with 95% prediction intervals); RMSLE {number(held["rmsle"])}, "no change" ({number(last)}) '
           f'{number(held["rmsle_persistence"])}')
  table = _table(title, 'run', held['size'], 'beyond', 'measured', 'predicted', 'error')
  for row in sorted(held['rows'], key=lambda row: row['size'])[-12:]:
    table.add_row(printable(row['run'])[:26], number(row['size']), f'{row["factor"]:.2f}x', number(row['measured']),
                  _with_range(row['predicted'], row.get('ci95_run')),
                  f'{100 * (row["predicted"] / row["measured"] - 1):+.2f}%')
  if len(held['rows']) > 12:
    table.caption = f'the largest 12 of {len(held["rows"])}; law.json has all'
  return table


def _optimal(optimal):
  table = _table(f'compute-optimal (with 95% intervals); {optimal["cost"]}', 'FLOPs', 'N*', 'D*', 'D*/N*', 'loss',
                 'new run')
  for row in optimal['rows']:
    table.add_row(number(row['flops']), _with_range(row['params'], row.get('params_ci95')),
                  _with_range(row['examples'], row.get('examples_ci95')), number(row['examples_per_param']),
                  _with_range(row['loss'], row.get('loss_ci95')), '\n' + _range(row.get('loss_run_ci95')))
  return table
