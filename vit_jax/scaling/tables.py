"""Readers of tables (CSV, TSV, JSON, JSONL, Parquet) and run folders, which return rows as plain dicts."""

import csv
import gzip
import io
import json
import os
import re
import zlib
from concurrent import futures
from typing import Any

from etils import epath

from vit_jax import goodput, records
from vit_jax.errors import UserError

Row = dict[str, Any]
LARGEST = 2**31  # bytes of an unpacked table
_SEPARATORS = (',', ';', '\t', '|')
_STATES = ('finished', 'running', 'crashed', 'failed', 'killed', 'preempted', 'preempting', 'pending')  # of W&B
_LEVELS = 4  # of records in records
READERS = 16  # threads, because reading many small files from a bucket is mostly waiting
SPLITS = ('val', 'test', 'train')  # a metric without a split is read from the first of these that a run has


def read_table(path: epath.Path) -> tuple[list[Row], list[str]]:
  """The rows of a .csv, .tsv, .json, .jsonl or .parquet table, also .gz, and a sentence for each line left out.

  Of a record in a record, such as the config and the summary of a run, the columns are config.NAME and summary.NAME.
  The columns Name and State of an export from W&B become the run's name and whether it counts: only finished runs do.

  Raises:
    UserError: another kind of file, an empty table, or a line other than the last that cannot be parsed.
  """
  content, suffixes = path.read_bytes(), [suffix.lower() for suffix in path.suffixes]
  if suffixes[-1:] == ['.gz']:
    content, suffixes = _unzipped(path, content), suffixes[:-1]
  kind = suffixes[-1] if suffixes else ''
  if kind not in _KINDS:
    raise UserError(f'{path}: expected a table that ends in {", ".join(_KINDS)} (or one of these and .gz), got '
                    f'{path.suffix!r}')
  rows, dropped = _KINDS[kind](path, content if kind == '.parquet' else _text(path, content))
  if not rows:
    raise UserError(f'{path}: expected a table with rows, got an empty one')
  return _finished(path, [_flat(row) for row in rows], dropped)


def _flat(row, levels=_LEVELS):
  """A row whose records in records are columns with a dot in their names."""
  out = {}
  for name, value in row.items():
    inner = _flat(value, levels - 1) if isinstance(value, dict) and levels else {}
    out |= {f'{name}.{below}': deep for below, deep in inner.items()} if inner else {name: value}
  return out


def _text(path, content):
  try:
    return content.decode('utf-8-sig')  # spreadsheets write a byte order mark
  except UnicodeDecodeError as error:
    raise UserError(f'{path}: expected UTF-8, got {error}; save the table as UTF-8') from error


def _unzipped(path, content):
  try:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
      out = file.read(LARGEST + 1)
  except (OSError, EOFError, zlib.error) as error:
    raise UserError(f'{path}: expected a gzip file, got an error: {error}') from error
  if len(out) > LARGEST:
    raise UserError(f'{path}: expected at most {LARGEST} bytes when unpacked')
  return out


def _parquet(path, content):
  try:
    import pyarrow
    from pyarrow import parquet
  except ImportError as error:
    raise UserError(f'{path}: Parquet needs another package: pip install pyarrow') from error
  try:
    return parquet.read_table(pyarrow.BufferReader(content)).to_pylist(), []
  except (pyarrow.ArrowException, OSError, ValueError) as error:
    raise UserError(f'{path}: expected a Parquet file, got an error: {str(error)[:200]}') from error


def _finished(path, rows, dropped):
  """The rows of runs that are finished, by the column State of an export from W&B; all rows of another table."""
  if not all(str(row.get('State', '')).lower() in _STATES for row in rows):
    return rows, dropped
  for number, row in enumerate(rows, 2):
    if 'Name' in row:
      row.setdefault('run', row['Name'])
    if row['State'].lower() != 'finished':
      dropped.append(f'{row.get("run") or f"{path.name}, line {number}"}: not finished (State {row["State"]!r})')
  return [row for row in rows if row['State'].lower() == 'finished'], dropped


def find_runs(path: epath.Path) -> list[epath.Path]:
  """The run folders (folders with a run.json) at or below a path, sorted by name.

  A folder that links lead to as well, such as `latest` or `best`, is found once, so links in a circle do no harm.
  """
  found, level, seen = [], [path], {_place(path)[1]}
  with futures.ThreadPoolExecutor(READERS) as pool:
    while level:
      inspected = list(pool.map(_inspect, level))
      found += [folder for folder, (is_run, _) in zip(level, inspected) if is_run]
      places = {inner: _place(inner) for _, inside in inspected for inner in inside}
      level = []
      for inner in sorted(places, key=lambda inner: (places[inner][0], inner)):  # links last
        if (real := places[inner][1]) not in seen:
          seen.add(real)
          level.append(inner)
  return sorted(found)


def _place(path):
  """(whether a path is a link, the path that it leads to); buckets have no links."""
  text = os.fspath(path)
  return (False, text) if '://' in text else (os.path.islink(text), os.path.realpath(text))


def read_runs(folders: list[epath.Path]) -> list[tuple[Row, list[Row], bool] | UserError]:
  """(run.json, the rows of metrics.jsonl, whether its last line is incomplete) of each run folder.

  For a run with a damaged file, it is the error that says what is wrong and what to do.
  """
  with futures.ThreadPoolExecutor(READERS) as pool:
    return list(pool.map(_read_run, folders))


def time_spent(folders: list[epath.Path]) -> dict[str, float]:
  """{kind: seconds}, how the runs together spent their time (see `goodput`); damaged lines are left out."""
  with futures.ThreadPoolExecutor(READERS) as pool:
    return goodput.total(pool.map(_time_spent, folders))


def _time_spent(folder):
  return goodput.breakdown(records.read_events(folder / records.EVENTS))


def _inspect(path):
  """(whether the path is a run folder, the paths to inspect next)."""
  if (path / records.RUN).exists():
    return True, []
  return False, [p for p in path.iterdir() if not p.name.startswith('.')] if path.is_dir() else []


def _read_run(folder):
  try:
    run = records.read_run(folder)
  except UserError as error:
    return error
  rows, faults = records.readable_rows(folder / records.METRICS, records.ROW)
  if faults and run.get('status') != 'trunk':  # any row may be the one that counts
    more = f' (and {len(faults) - 1} more lines)' if len(faults) > 1 else ''
    return UserError(f'{faults[0]}{more}. Put a copy of the file in its place, or train the run again in another '
                     'folder')
  return run, rows, _is_cut_off(folder / records.METRICS)


def _is_cut_off(path):
  """Whether the last line of a .jsonl file is incomplete (`records.read_rows` leaves it out)."""
  content = path.read_bytes() if path.exists() else b''
  return bool(content) and not content.endswith(b'\n')


def _csv(path, text):
  separator = _separator(path, text)
  try:
    lines = list(csv.reader(io.StringIO(text, newline=''), delimiter=separator))
  except csv.Error as error:
    raise UserError(f'{path}: {error}') from error
  lines = [(i, [field.strip() for field in fields]) for i, fields in enumerate(lines, 1) if any(
      field.strip() for field in fields)]
  if not lines:
    return [], []
  header, body, dropped = lines[0][1], lines[1:], []
  if repeated := sorted({name for name in header if header.count(name) > 1}):
    raise UserError(f'{path}: expected distinct column names, got {repeated[0]!r} twice')
  if body and not text.endswith('\n') and _is_cut(header, [fields for _, fields in body]):
    dropped.append(f'{path.name}, line {body[-1][0]}: incomplete last line')
    body = body[:-1]
  for number, fields in body:
    if len(fields) != len(header):
      raise UserError(f'{path}, line {number}: expected {len(header)} fields as in the header, got {len(fields)} (the '
                      f'separator is {separator!r})')
  rows = [dict(zip(header, fields)) for _, fields in body]
  return [{key: value for key, value in row.items() if key or value} for row in rows], dropped


def _separator(path, text):
  """The character between fields: of those in use, the one that the header has most of.

  Raises:
    UserError: the numbers seem to have decimal commas.
  """
  head, _, rest = text.partition('\n')
  found = max(_SEPARATORS, key=head.count)
  if found == ';' and (comma := re.search(r'(?:^|;)\s*(-?\d+,\d+)\s*(?=;|\r|\n|$)', rest)):
    raise UserError(f"{path}: the separator is ';' and numbers have decimal commas, such as {comma[1]!r}: expected "
                    'decimal points; save the table with a point as the decimal separator')
  return found if head.count(found) else ','


def _is_cut(header, rows):
  """Whether the last row of a file without a last newline was cut off: in its fields, or inside its last number."""
  if len(rows[-1]) != len(header):
    return True
  digits = [len(re.sub(r'\D', '', row[-1].lower().partition('e')[0])) for row in rows if len(row) == len(header)]
  broken = re.search(r'(e[+-]?|[.+-])$', rows[-1][-1], re.IGNORECASE)  # a number cannot end like this
  return bool(broken and digits[-1]) or (len(digits) > 2 and 2 * digits[-1] <= min(digits[:-1]))


def _jsonl(path, text):
  rows, dropped, lines = [], [], text.split('\n')
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except (ValueError, RecursionError) as error:  # a number with thousands of digits raises a plain ValueError
      if number == len(lines):  # without a newline at its end
        dropped.append(f'{path.name}, line {number}: incomplete last line')
        continue
      raise UserError(f'{path}, line {number}: expected JSON, got an error: {error}') from error
    rows.append(_object(path, number, row))
  return rows, dropped


def _json(path, text):
  try:
    rows = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path}: expected JSON, got an error: {error}') from error
  rows = _of_object(rows) if isinstance(rows, dict) else rows
  if not isinstance(rows, list):
    raise UserError(f'{path}: expected a list of objects, one per row, or an object of columns or of runs, got '
                    f'{type(rows).__name__}')
  return [_object(path, number, row) for number, row in enumerate(rows, 1)], []


def _of_object(content):
  """The rows of {column: [values]}, {column: {number: value}} as pandas writes it, {run: row} or {name: [rows]}.

  Anything else comes back as it is.
  """
  values = list(content.values())
  of_rows = [value for value in values if isinstance(value, list) and value and all(isinstance(row, dict)
                                                                                   for row in value)]
  if len(of_rows) == 1:
    return of_rows[0]
  if values and all(isinstance(value, list) for value in values) and len(set(map(len, values))) == 1:
    return [dict(zip(content, row)) for row in zip(*values)]
  if values and all(isinstance(value, dict) for value in values):
    if all(key.isdecimal() for value in values for key in value):
      keys = dict.fromkeys(key for value in values for key in value)
      return [{name: column[key] for name, column in content.items() if key in column} for key in keys]
    return [{'run': run} | row for run, row in content.items()]
  return content


def _object(path, number, row):
  if not isinstance(row, dict):
    raise UserError(f'{path}, row {number}: expected an object, got {row!r}')
  return row


_KINDS = {'.csv': _csv, '.tsv': _csv, '.json': _json, '.jsonl': _jsonl, '.parquet': _parquet}
