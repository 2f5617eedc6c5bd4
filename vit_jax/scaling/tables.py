"""Rows as plain dicts, from CSV and JSONL tables and from run folders. What cannot be read is named."""

import csv
import io
import json
from concurrent import futures
from typing import Any

from etils import epath

from vit_jax import goodput, records
from vit_jax.errors import UserError

Row = dict[str, Any]
READERS = 16  # threads: reading many small files of a bucket is waiting
SPLITS = ('val', 'test', 'train')  # the split of a metric that names none: the first that a run has (laws use val)


def read_table(path: epath.Path) -> tuple[list[Row], list[str]]:
  """The rows of a .csv, .tsv, .json or .jsonl table, and what was left out, in words.

  Raises:
    UserError: no such kind of table, an empty one, or a line in the middle that does not parse.
  """
  try:
    text = path.read_bytes().decode('utf-8-sig')  # spreadsheets write a mark before the first column's name
  except UnicodeDecodeError as error:
    raise UserError(f'{path}: not UTF-8 ({error}); save the table as UTF-8') from error
  if path.suffix in ('.csv', '.tsv'):
    rows, dropped = _csv(path, text, '\t' if path.suffix == '.tsv' else ',')
  elif path.suffix == '.jsonl':
    rows, dropped = _jsonl(path, text)
  elif path.suffix == '.json':
    rows, dropped = _json(path, text), []
  else:
    raise UserError(f'{path}: a table ends in .csv, .tsv, .json or .jsonl')
  if not rows:
    raise UserError(f'{path}: no rows in it')
  return rows, dropped


def find_runs(path: epath.Path) -> list[epath.Path]:
  """The run folders (those with a run.json) in a folder, itself included, in order of their names."""
  found, level = [], [path]
  with futures.ThreadPoolExecutor(READERS) as pool:
    while level:
      looked = list(pool.map(_look, level))
      found += [folder for folder, (is_run, _) in zip(level, looked) if is_run]
      level = [inner for _, inside in looked for inner in inside]
  return sorted(found)


def read_runs(folders: list[epath.Path]) -> list[tuple[Row, list[Row], bool]]:
  """(run.json, the rows of metrics.jsonl, whether that ends in half a line) of each run folder.

  Raises:
    UserError: a file that does not parse.
  """
  with futures.ThreadPoolExecutor(READERS) as pool:
    return list(pool.map(_read_run, folders))


def time_spent(folders: list[epath.Path]) -> dict[str, float]:
  """{kind: seconds}: where the time of these runs went, together (`goodput.spent`); damaged event logs are left out."""
  with futures.ThreadPoolExecutor(READERS) as pool:
    return goodput.total(pool.map(_spent, folders))


def _spent(folder):
  try:
    return goodput.spent(records.read_rows(folder / records.EVENTS))
  except UserError:  # the law does not rest on it
    return goodput.spent([])


def _look(path):
  """(whether it is a run folder, what else is to be looked into)."""
  if (path / records.RUN).exists():
    return True, []
  return False, [p for p in path.iterdir() if not p.name.startswith('.')] if path.is_dir() else []


def _read_run(folder):
  run, rows = records.read_run(folder), records.read_rows(folder / records.METRICS)
  return run, rows, _half_line(folder / records.METRICS)


def _half_line(path):
  """Whether a .jsonl file ends in a line that was cut off (records.read_rows leaves it out)."""
  content = path.read_bytes() if path.exists() else b''
  return bool(content) and not content.endswith(b'\n')


def _csv(path, text, delimiter):
  try:
    lines = list(csv.reader(io.StringIO(text, newline=''), delimiter=delimiter))
  except csv.Error as error:
    raise UserError(f'{path}: {error}') from error
  lines = [(i, fields) for i, fields in enumerate(lines, 1) if any(f.strip() for f in fields)]
  if not lines:
    return [], []
  header, body, dropped = [name.strip() for name in lines[0][1]], lines[1:], []
  if repeated := sorted({name for name in header if header.count(name) > 1}):
    raise UserError(f'{path}: the column {repeated[0]!r} appears twice')
  if body and len(body[-1][1]) != len(header) and not text.endswith('\n'):
    dropped.append(f'{path.name}, line {body[-1][0]}: half-written last line')
    body = body[:-1]
  for number, fields in body:
    if len(fields) != len(header):
      raise UserError(f'{path}, line {number}: {len(fields)} fields, where the header has {len(header)}')
  return [dict(zip(header, (f.strip() for f in fields))) for _, fields in body], dropped


def _jsonl(path, text):
  rows, dropped, lines = [], [], text.split('\n')
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is no JSONDecodeError
      if number == len(lines):  # no newline follows it
        dropped.append(f'{path.name}, line {number}: half-written last line')
        continue
      raise UserError(f'{path}, line {number}: not JSON ({error})') from error
    rows.append(_object(path, number, row))
  return rows, dropped


def _json(path, text):
  try:
    rows = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path}: not JSON ({error})') from error
  if not isinstance(rows, list):
    raise UserError(f'{path}: a .json table is a list of objects, one a row')
  return [_object(path, number, row) for number, row in enumerate(rows, 1)]


def _object(path, number, row):
  if not isinstance(row, dict):
    raise UserError(f'{path}, row {number}: {row!r}, where an object is needed')
  return row
