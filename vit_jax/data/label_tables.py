"""Pictures whose classes are in a table: csv:FILE, csv:DIR, and folder:DIR with a labels.csv.

A table has the names of the pictures in one column, and either the classes of each in another one, or a column of 0 and
1 for each class. With a separator between the classes of a picture, lists of classes, or several columns, a picture has
any number of classes, also none.
"""

import collections
import dataclasses
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_jax import buckets
from vit_jax.data import class_folders, folder_names, listing, tables
from vit_jax.data.image_folder import FolderSource
from vit_jax.errors import UserError, nearest

NAMES = tuple(f'labels{suffix}' for suffix in tables.SUFFIXES)  # of the table in folder:DIR
SEPARATORS = ('|', ';', ',', ' ')  # that people put between the classes of a picture
_ID = re.compile(r'(image|img|picture|photo)?[ _-]?id', re.I)
_SPLIT = re.compile(r'split|partition|subset', re.I)
_ONE = r'(class|label|tag|category|target)([ _-]?(name|id))?'
_MANY = re.compile(r'((class|label|tag|category|target)[ _-])?(classes|labels|tags|categories|targets|names)', re.I)
_CLASS = re.compile(rf'{_ONE}|{_MANY.pattern}', re.I)
_FLAGS = {'': 0, '0': 0, '0.0': 0, 'false': 0, 'nan': 0, 'none': 0, '1': 1, '1.0': 1, 'true': 1}


class Row(NamedTuple):
  """A row of a table: where it is, for messages, and {column: value}."""
  where: str
  fields: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Columns:
  """What the columns of a table mean.

  Attributes:
    file: the one with the names of the pictures.
    classes: those of 0 and 1, a class each, or the one with the names of classes.
    named: whether it is the latter.
    separator: between the classes in one value; None: a value is one class, or a list of them.
    several: whether a picture can have several classes, or none.
  """
  file: str
  classes: tuple[str, ...]
  named: bool
  separator: str | None
  several: bool

  def of(self, row: Row) -> tuple[str, ...]:
    """The classes of a row. Raises UserError for a value that has no meaning."""
    if not self.named:
      return tuple(name for name in self.classes if self._flag(row, name))
    found = _texts(row.fields.get(self.classes[0]), self.separator)
    if not self.several and len(found) != 1:
      raise UserError(f'{row.where}: {self.classes[0]} is empty; expected the class of the picture')
    return found

  def _flag(self, row, name):
    value = row.fields.get(name)
    if (flag := _FLAGS.get(str('' if value is None else value).strip().lower())) is None:
      raise UserError(f'{row.where}: {name} is {value!r}; expected 0 or 1 (empty is 0)' + (
          '. If -1 means uncertain, write 0 or 1 in its place' if str(value).startswith('-1') else ''))
    return flag


def in_folder(root: class_folders.Folder) -> bool:
  """Whether folder:ROOT has its labels in tables: in ROOT, or in all of its folders of splits."""
  if _table_in(root):
    return True
  places = [root / name for name in listing.subfolders(root) if folder_names.split_of(name)] if root.is_dir() else []
  return bool(places) and all(map(_table_in, places))


def open_tables(place: class_folders.Folder, columns: Sequence[str] | None = None, separator: str | None = None
                ) -> dict[str, FolderSource]:
  """Opens pictures with a table of their classes.

  Args:
    place: a table, which may have a column `split`; or a folder with labels.csv (.tsv, .jsonl), with tables called
      after splits (train.csv, valid.csv), or with folders of splits that have such tables. Pictures are named by their
      path from the folder of the table. The suffix and the folder may be missing where that leaves one picture.
    columns: the column with the classes, or the columns of 0 and 1; None: found by their names and values.
    separator: between several classes in one value; None: there is one, or a list.

  Returns:
    'train', and 'val' and 'test' if they are there. Labels are int32 [N], or uint8 [N, C] of 0 and 1 where pictures can
    have several.

  Raises:
    UserError: there is no such table or picture, a value or a column has no meaning, or a class is not in train.
  """
  read = {split: (path.parent, [Row(f'{path}, line {line}', fields) for line, fields in tables.rows(path)])
          for split, path in _tables(place).items()}
  if list(read) == ['']:
    folder, rows = read['']
    read = {split: (folder, some) for split, some in _by_split(rows).items()}
  split, (_, rows) = next(iter(read.items()))
  if not rows:
    raise UserError(f'{place}: no rows in the table of {split}; expected one for each picture')
  meaning, classes, sources = _columns(rows, columns, separator), None, {}
  for split, (folder, rows) in read.items():
    if missing := [name for name in (meaning.file, *meaning.classes) if not any(name in row.fields for row in rows)]:
      raise UserError(f'{place}: the table of {split} has no column {missing[0]!r}, which that of '
                      f'{next(iter(read))} has')
    sources[split] = _source(place, folder, split, rows, meaning, classes)
    classes = sources[split].class_names
  return sources


def _tables(place):
  """{split: the path of its table}, train first; {'': path} for one table."""
  if place.is_file():
    return {'': place}
  if not place.is_dir():
    near = nearest(place.name, [p.name for p in place.parent.iterdir()]) if place.parent.is_dir() else ''
    raise UserError(f'csv:{place}: no such file or folder{near}')
  if table := _table_in(place):
    return {'': table}
  found = [(path.stem, path) for path in sorted(place.iterdir()) if path.name.lower().endswith(tables.SUFFIXES)]
  found += [(name, table) for name in listing.subfolders(place) if (table := _table_in(place / name))]
  by_split: dict[str, Any] = {}
  for name, path in found:
    if split := folder_names.split_of(name):
      if split in by_split:
        raise UserError(f'{place}: {by_split[split].name} and {path.name} both mean {split}; expected one of them')
      by_split[split] = path
  if not by_split:
    others = ', '.join(path.name for _, path in found[:5]) or 'no table'
    raise UserError(f'csv:{place}: found {others}; expected {NAMES[0]}, or tables such as train.csv and val.csv; or '
                    'name the table: csv:DIR/FILE')
  return dict(sorted(by_split.items(), key=lambda item: item[0] != 'train'))


def _table_in(folder):
  return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def _by_split(rows):
  """The rows of one table, by its column `split` if it has one."""
  column = next((name for name in (rows[0].fields if rows else ()) if _SPLIT.fullmatch(name.strip())), None)
  if column is None:
    return {'train': rows}
  found = collections.defaultdict(list)
  for row in rows:
    if (split := folder_names.split_of(str(row.fields.get(column)).strip())) is None:
      raise UserError(f'{row.where}: {column} is {row.fields.get(column)!r}; expected train, val or test')
    found[split].append(row)
  return dict(sorted(found.items(), key=lambda item: item[0] != 'train'))


def _columns(rows, given, separator):
  """The `Columns` of a table."""
  names = list(dict.fromkeys(name for row in rows for name in row.fields))
  file = tables.file_column(names) or next((name for name in names if _ID.fullmatch(name.strip())), None)
  where = rows[0].where.rpartition(',')[0]
  if file is None:
    raise UserError(f'{where}: has the columns {_listed(names)}; expected the names of pictures in one that is called '
                    'file_name, image, path or alike')
  others = [name for name in names if name != file and not _SPLIT.fullmatch(name.strip())]
  for name in given or ():
    if name not in others:
      raise UserError(f'data.label_columns={_listed(given)}: {where} has no {name!r}{nearest(name, others)}')
  chosen = list(given) if given else _chosen(rows, others, where)
  if len(chosen) > 1:
    if separator is not None:
      raise UserError(f'data.label_separator={separator!r}: is between the classes in one column, and {where} has '
                      f'{len(chosen)} columns of 0 and 1; leave it out')
    return Columns(file, tuple(chosen), False, None, True)
  values = [row.fields.get(chosen[0]) for row in rows]
  several = separator is not None or any(isinstance(value, (list, tuple)) for value in values)
  if not several and _MANY.fullmatch(chosen[0].strip()):
    used = {mark: sum(mark in str(value).strip() for value in values) for mark in SEPARATORS}
    if any(used.values()):
      raise UserError(f'{where}: {chosen[0]} seems to have several classes in a value, such as '
                      f'{max(map(str, values), key=len)!r}; say what is between them, such as '
                      f'--config.data.label_separator={max(used, key=used.get)!r}. If each value is one class, '
                      'call the column "class"')
  return Columns(file, tuple(chosen), True, separator, several)


def _chosen(rows, others, where):
  """The columns of classes: the one that is called so, or all if they have only 0 and 1."""
  if called := [name for name in others if _CLASS.fullmatch(name.strip())]:
    return called[:1]
  numbers = {*_FLAGS, '-1', '-1.0'}
  binary = [name for name in others if all(
      str('' if (value := row.fields.get(name)) is None else value).strip().lower() in numbers for row in rows)]
  if not binary or len(binary) < len(others):
    raise UserError(f'{where}: has the columns {_listed(others)}; expected one called class or labels, or all of 0 and '
                    f'1. Name those of the classes: --config.data.label_columns={",".join(binary or others)}')
  return binary


def _source(place, folder, split, rows, columns, classes):
  """The pictures of a split; `classes` are those of train."""
  found, others = listing.files(folder)
  files = sorted({file.real: file for file in sorted(found, key=lambda file: not file.linked)}.values())
  matched, absent = _matched(folder, files, rows, columns)
  if not matched:
    raise UserError(f'{folder}: none of the {len(absent):,} pictures of the table of {split} is there, such as '
                    f'{absent[0]!r}; expected paths from {folder}' if absent else f'{place}: no rows for {split}')
  if classes is None:
    named = {name for of in matched.values() for name in of}
    classes = tuple(sorted(named, key=_order)) if columns.named else columns.classes
    if len(classes) < 2:
      raise UserError(f'{place}: train has the classes {_listed(classes)}; a classifier needs two or more')
  number = {name: i for i, name in enumerate(classes)}
  if unknown := next((name for of in matched.values() for name in of if name not in number), None):
    raise UserError(f'{place}: {split} has the class {unknown!r}, and train has no such class'
                    f'{nearest(unknown, classes)}')
  folder_names.say_left_out(folder, [('pictures of the table are not there', absent)], others)
  kept = sorted(matched)
  if columns.several:
    labels = np.zeros((len(kept), len(classes)), np.uint8)
    for row, file in zip(labels, kept):
      row[[number[name] for name in matched[file]]] = 1
  else:
    labels = np.array([number[matched[file][0]] for file in kept], np.int32)
  sizes = [file.size for file in kept] if buckets.is_bucket(folder) else None
  return FolderSource(place.name.partition('.')[0], classes, tuple(file.path for file in kept), labels, folder, sizes)


def _matched(folder, files, rows, columns):
  """({file: its classes}, names of pictures that are not there)."""
  find, out, absent = _finder(folder, files), {}, []
  for row in rows:
    name = str(row.fields.get(columns.file) or '')
    file = find(name, row.where)
    if file is None:
      absent.append(name)
      continue
    classes = columns.of(row)
    if file in out and not columns.several and out[file] != classes:
      raise UserError(f'{row.where}: {name!r} is {classes[0]!r}, and {out[file][0]!r} in a row before; give '
                      "data.label_separator='|' if a picture can have several classes")
    out[file] = tuple(dict.fromkeys((*out.get(file, ()), *classes)))
  return out, absent


def _finder(folder, files):
  """A function (name in the table, where it is) -> the picture, or None.

  A name is a path from the folder, or from the one above it. Without a suffix or a folder it is the one picture that
  has that name.
  """
  start = len(os.fspath(folder)) + 1
  whole = {tables.key(file.path[start:]): file for file in files}
  short = collections.defaultdict(list)
  for path, file in whole.items():
    last = path.rpartition('/')[2]
    for name in {path.rpartition('.')[0], last, last.rpartition('.')[0]} - {path}:
      short[name].append(file)

  def find(name, where):
    path = tables.key(name)
    path = path.removeprefix(f'{folder.name}/') if path not in whole else path
    if path in whole:
      return whole[path]
    found = short.get(path, ())
    if len(found) > 1:
      raise UserError(f'{where}: {name!r} can be {found[0].path} or {found[1].path}; expected the path from {folder}')
    return found[0] if found else None

  return find


def _texts(value, separator) -> tuple[str, ...]:
  """The classes in a value: a text, a number, nothing, or a list of these."""
  if isinstance(value, (list, tuple)):
    return tuple(text for item in value for text in _texts(item, None))
  if value is None or value != value:  # null, or NaN
    return ()
  parts = [str(value)] if separator is None else str(value).split(separator if separator.strip() else None)
  return tuple(text for part in parts if (text := ' '.join(part.split())))


def _order(name: str):
  """Numbers by their value, before texts."""
  number = name.isascii() and name.isdigit()
  return not number, int(name) if number else 0, name


def _listed(names: Iterable[str]) -> str:
  return ','.join(map(str, names)) or 'none'
