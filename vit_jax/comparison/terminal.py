"""The tables that `compare` prints."""

from rich import box
from rich.table import Table
from rich.text import Text

from vit_jax.comparison import settings, words
from vit_jax.comparison.runs import Comparison
from vit_jax.console import Console
from vit_jax.printable import printable

MOST_SHOWN = 10  # lines of a section, or arrays
_MOST_COLUMNS = 24  # of metrics.jsonl


def show(console: Console, comparison: Comparison) -> None:
  """Prints what differs: records, then rows, then tensors, then the verdict."""
  say = lambda text, **style: console.print(Text(printable(text), **style), highlight=False, soft_wrap=True)
  for name, run in (('A', comparison.a), ('B', comparison.b)):
    say(f'{name}  {run["path"]} ({run["config_hash"]}, {run["status"]})')
  if comparison.record:
    console.print(_record(comparison.record))
  else:
    say('run.json: nothing differs')
  if comparison.a['config_hash'] == comparison.b['config_hash'] and 'config' in comparison.record:
    say('note: both have the same identity: what differs under config is at its default in one of them')
  for note in comparison.notes:
    say('note: ' + note)
  _show_rows(console, say, comparison.logs)
  _show_checkpoints(console, say, comparison.checkpoints)
  say(comparison.verdict(), style='bold')


def _table(title, *columns, left=()):
  table = Table(title=title, title_justify='left', box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
  for name in columns:
    table.add_column(name, justify='left' if name in left else 'right', overflow='fold')
  return table


def _record(record):
  table = _table('run.json', 'differs', 'A', 'B', left=('differs', 'A', 'B'))
  shown = lambda value: '-' if value is settings.ABSENT else words.value(value)
  for section, found in record.items():
    table.add_row(Text(section, style='bold'))
    for setting in found[:MOST_SHOWN]:
      cells = (f'  {setting.key}', shown(setting.a), shown(setting.b))
      table.add_row(*(Text(printable(cell)) for cell in cells))
    if len(found) > MOST_SHOWN:
      table.add_row(f'  and {len(found) - MOST_SHOWN:,} more')
  return table


def _show_rows(console, say, logs):
  say(f'metrics.jsonl: {logs.exact:,} of {logs.compared:,} common rows are equal'
      + _only(logs.only_a, logs.only_b, 'row', lambda key: f'{key[1]}, step {key[0]:,}'))
  if not logs.growth:
    return
  table = _table('the first difference of each column; relative: there, the largest, in the last common row',
                 'column', 'step', 'A', 'B', 'relative', 'largest', 'last', left=('column',))
  for growth in logs.growth[:_MOST_COLUMNS]:
    cell, last = growth.first, growth.last
    values = (Text(printable(words.value(value))) for value in (cell.a, cell.b))
    table.add_row(Text(printable(f'{growth.split} {growth.column}')), f'{cell.step:,}', *values,
                  words.ratio(cell.relative), words.ratio(growth.largest.relative),
                  words.ratio(last.relative) if last else '0')
  if len(logs.growth) > _MOST_COLUMNS:
    table.caption = f'{_MOST_COLUMNS} of {len(logs.growth):,}; all are in --json'
  console.print(table)


def _show_checkpoints(console, say, checkpoints):
  alike = len(checkpoints.compared) - len(checkpoints.differing)
  say(f'checkpoints: {alike:,} of {len(checkpoints.compared):,} common ones are equal'
      + _only(checkpoints.only_a, checkpoints.only_b, 'checkpoint', lambda step: f'step {step:,}'))
  first, beyond = checkpoints.first, checkpoints.beyond
  for step in filter(None, (first, None if beyond is first else beyond)):
    if step.tensors:
      console.print(_tensors(step))
    if only := _only(step.only_a, step.only_b, 'array', str):
      say(f'step {step.step:,}: {only.removeprefix("; ")}')


def _tensors(step):
  table = _table(f'arrays that differ at step {step.step:,}', 'array', 'elements', 'absolute', 'relative',
                 left=('array',))
  for tensor in step.tensors[:MOST_SHOWN]:
    elements = (f'{tensor.elements:,} of {tensor.of:,}' if tensor.a == tensor.b else f'{tensor.a}, there {tensor.b}')
    table.add_row(Text(printable(tensor.name)), Text(elements), words.ratio(tensor.absolute),
                  words.ratio(tensor.relative))
  if len(step.tensors) > MOST_SHOWN:
    table.caption = f'the {MOST_SHOWN} that differ most of {len(step.tensors):,}; all are in --json'
  return table


def _only(a, b, noun, name):
  """`; only A has 2 rows (val, step 6, ...)`, for those of A and B that have any."""
  return ''.join(f'; only {side} has {words.count(len(found), noun)} ({name(found[0])}{", ..." if found[1:] else ""})'
                 for side, found in (('A', a), ('B', b)) if found)
