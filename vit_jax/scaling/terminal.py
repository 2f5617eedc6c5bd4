"""The table that `law` prints."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vit_jax.scaling.analysis import Analysis
from vit_jax.scaling.verdict import not_identified, number


def show(console: Console, name: str, analysis: Analysis) -> None:
  """Prints one group's law, from what it is fitted to down to its verdict. Names from logs are printed as they are."""
  law = analysis.law
  if name:
    console.rule(Text(name))
  console.print(Text(law['diagnostics']['equation'], style='bold'), highlight=False)
  console.print(Text(_fit_line(law)), highlight=False)
  if analysis.selection:
    console.print(Text(analysis.selection.words()), highlight=False)
  console.print(_coefficients(law))
  if law['holdout']:
    console.print(_holdout(law['holdout']))
  if law['compute_optimal']:
    console.print(_optimal(law['compute_optimal']))
  for words in [*analysis.points.dropped_words(), *law['notes']]:
    console.print(Text('note: ' + words), highlight=False)
  for words in law['warnings']:
    console.print(Text('warning: ' + words, style='yellow'), highlight=False)
  console.print(Text('verdict: ' + law['verdict'], style='bold'), highlight=False)


def _fit_line(law):
  objective, d = law['objective'], law['diagnostics']
  name = objective['name'] + (f', delta {objective["delta"]:g}' if 'delta' in objective else '')
  ends = f'{d["starts_ended_here"]} refined starts ended in this optimum'
  return (f'{law["n"]} points; {name} (summed); {d["starts"]} starts, {ends}; gradient {d["gradient"]:.1g}; '
          f'condition {d["condition"]:.3g}')


def _table(title, *names):
  table = Table(title=title, title_justify='left', box=box.SIMPLE_HEAD, pad_edge=False)
  for name in names:
    table.add_column(name, justify='left' if name in ('coefficient', 'run') else 'right')
  return table


def _range(interval):
  return f'{number(interval[0], 3)} .. {number(interval[1], 3)}' if interval else '-'


def _with_range(value, interval):
  """The value over its interval: two lines, so that tables fit a terminal of 80 columns."""
  return number(value) + (f'\n{_range(interval)}' if interval else '')


def _coefficients(law):
  table, unclear = _table(None, 'coefficient', 'value', '95% interval'), not_identified(law)
  for name, value in law['coefficients'].items():
    interval = (law['ci95'] or {}).get(name)
    table.add_row(name, 'not identified' if name in unclear else number(value), _range(interval))
  return table


def _holdout(held):
  last = held['rows'][0]['persistence']
  title = (f'held out (below: 95% of a run); RMSLE {number(held["rmsle"])}, of "no change" ({number(last)}) '
           f'{number(held["rmsle_persistence"])}')
  table = _table(title, 'run', held['size'], 'beyond', 'measured', 'predicted', 'error')
  for row in sorted(held['rows'], key=lambda row: row['size'])[-12:]:
    table.add_row(Text(row['run'][:26]), number(row['size']), f'{row["factor"]:.2f}x', number(row['measured']),
                  _with_range(row['predicted'], row.get('ci95_run')),
                  f'{100 * (row["predicted"] / row["measured"] - 1):+.2f}%')
  if len(held['rows']) > 12:
    table.caption = f'the largest 12 of {len(held["rows"])}; all are in law.json'
  return table


def _optimal(optimal):
  table = _table(f'compute-optimal (below: 95%); {optimal["cost"]}', 'FLOPs', 'N*', 'D*', 'D*/N*', 'loss', 'of a run')
  for row in optimal['rows']:
    table.add_row(number(row['flops']), _with_range(row['params'], row.get('params_ci95')),
                  _with_range(row['examples'], row.get('examples_ci95')), number(row['examples_per_param']),
                  _with_range(row['loss'], row.get('loss_ci95')), '\n' + _range(row.get('loss_run_ci95')))
  return table
