"""Tables about pictures in files: JSON lines, CSV and TSV, as people and programs write them."""

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from vit_jax.data import listing
from vit_jax.errors import UserError

SUFFIXES = ('.csv', '.tsv', '.jsonl')
_FILE = re.compile(r'(image|img|picture|photo)?[ _-]?(file|file[ _-]?name|path|name)|image|img|picture|photo', re.I)


def key(name: str) -> str:
  """What a picture's name in a table and its path are compared by: there are two ways to write slashes and accents."""
  return unicodedata.normalize('NFC', os.path.normpath(name.strip().replace('\\', '/')))


def file_column(names: Any) -> str | None:
  """The first of some columns that has the names of pictures, such as file_name, image or path; None if there is none.
  """
  return next((name for name in names if _FILE.fullmatch(name.strip())), None)


def rows(path: os.PathLike) -> Iterator[tuple[int, dict[str, Any]]]:
  """(line, {column: value}) of each row of a table; values of CSV and TSV are texts.

  Raises:
    UserError: it is no such table; the message has the line.
  """
  text = decoded(path, listing.read(os.fspath(path)))
  yield from (_json_rows if path.name.lower().endswith('.jsonl') else _csv_rows)(path, text)


def decoded(path: os.PathLike | str, content: bytes) -> str:
  """Text of UTF-8, with or without a mark, or of UTF-16 with its mark, as spreadsheets write it."""
  encoding = 'utf-16' if content[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
  try:
    return content.decode(encoding)
  except UnicodeDecodeError as error:
    line = content[:error.start].count(b'\n') + 1
    raise UserError(f'{path}, line {line}: not UTF-8 ({content[error.start:error.start + 1]!r}); save it as '
                    'UTF-8') from error


def _json_rows(path, text):
  for number, line in enumerate(text.split('\n'), 1):
    if not line.strip():
      continue
    try:
      fields = json.loads(line)
    except ValueError as error:
      raise UserError(f'{path}, line {number}: no JSON ({error})') from error
    if not isinstance(fields, dict):
      raise UserError(f'{path}, line {number}: expected an object, such as {{"file_name": "a.jpg", ..}}')
    yield number, fields


def _csv_rows(path, text):
  head = text.partition('\n')[0]
  delimiter = '\t' if path.name.lower().endswith('.tsv') else max(',;\t', key=head.count)
  reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter, strict=True)
  try:
    names = next(reader, [])
    for row in reader:
      if row:
        if len(row) > len(names):
          raise UserError(f'{path}, line {reader.line_num}: {len(row)} values for {len(names)} columns; put a text '
                          f'with a {delimiter!r} in it between quotes')
        yield reader.line_num, dict(zip(names, row))
  except csv.Error as error:
    raise UserError(f'{path}, line {reader.line_num}: {error}') from error
