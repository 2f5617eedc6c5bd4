"""The records of a run: run.json, metrics.jsonl and events.jsonl. Only this module writes and reads them.

metrics.jsonl contains no wall-clock time, so the file of a resumed run equals that of an uninterrupted run byte for
byte. Everything that depends on the clock is in events.jsonl.
"""

import contextlib
import json
import math
import os
import shlex
import tempfile
import threading
import time
import zlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from vit_jax import buckets, durable
from vit_jax.errors import UserError

RUN, METRICS, EVENTS, CHECKPOINTS = 'run.json', 'metrics.jsonl', 'events.jsonl', 'checkpoints'
TOKENIZER = 'tokenizer.json'  # that was learnt from the captions
_COMMITTED = 'commit_success.txt'
SET_ASIDE = 'metrics.damaged-{}.jsonl'  # a damaged log, and the step at which the log that replaces it begins


class DamagedRun(UserError):
  """A run.json that cannot be read."""


def write_run(folder: str | os.PathLike, fields: dict[str, Any]) -> None:
  """Writes run.json atomically: a reader sees either the old file or the new one."""
  durable.write(epath.Path(folder) / RUN, json.dumps(fields, indent=2) + '\n')


def read_run(folder: str | os.PathLike) -> dict[str, Any] | None:
  """Reads the run.json of a run folder; None if there is none.

  Raises:
    DamagedRun: it is not JSON, or a field has the wrong type. The message says how the run goes on.
  """
  path = epath.Path(folder) / RUN
  if (content := _content(path)) is None:
    return None
  try:
    fields = parse(content, os.fspath(path))
    for name, kinds in _KINDS.items():
      _check_kind(fields, name, kinds, path)
  except UserError as error:
    raise DamagedRun(f'{error}{"" if str(error).endswith("?") else "."} {way_on(folder)}') from error
  return fields


def objective_of(folder: str | os.PathLike) -> str | None:
  """The objective of a run; None if there is no run. Raises DamagedRun as `read_run` does."""
  record = read_run(folder)
  return None if record is None else (record.get('config') or {}).get('objective', 'classify')


def way_on(folder: str | os.PathLike) -> str:
  """What cures a damaged run.json: without it, a run resumes from its checkpoints, and writes it again."""
  path = os.fspath(epath.Path(folder) / RUN)
  remove = 'remove it' if '://' in path else f'`rm {shlex.quote(path)}`'
  return (f'To go on: {remove}, then repeat the command that trained this run: it resumes from its checkpoints and '
          'writes the file again. Or give another folder')


# The types of optional fields that readers of run.json rely on. In older runs, lineage is a name.
_KINDS = {'config': (dict,), 'config.data': (dict,), 'config.model': (dict,), 'config.optimizer': (dict,),
          'config.family': (str,), 'config_hash': (str,), 'status': (str,), 'params': (int,),
          'params_non_embedding': (int,), 'flops_per_example_forward': (int, float),
          'flops_per_example_train': (int, float), 'data': (dict,), 'data.classes': (list,), 'results': (dict,),
          'results.step': (int,), 'results.steps': (int,), 'results.val': (dict,), 'results.test': (dict,),
          'branch_steps': (list,), 'trunk_hash': (str,), 'lineage': (dict, str), 'lineage.step': (int,)}


def _check_kind(fields, name, kinds, path):
  value = fields
  for key in name.split('.'):
    value = value.get(key) if isinstance(value, dict) else None
  if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
    raise UserError(f'{path}: {name}: expected {kinds[0].__name__}, got {_short(value)}')


def readable_rows(path: str | os.PathLike, needed: Mapping[str, type]) -> tuple[list[dict[str, Any]], list[str]]:
  """The rows of a .jsonl file that can be used, and a message for each other line. As in `read_rows` for the last line.

  Args:
    path: the file; there need be none.
    needed: the columns that a row must have, and their types: EVENT or ROW.
  """
  rows, faults = [], []
  for where, line in _lines(path):
    try:
      row = parse(line, where)
      for name, kind in needed.items():
        if not isinstance(value := row.get(name), kind) or isinstance(value, bool):
          raise UserError(f'{where}: {name}: expected {kind.__name__}, got {_short(value)}')
      rows.append(row)
    except UserError as error:
      faults.append(str(error))
  return rows, faults


def read_events(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The events of a log. No result depends on them, so lines that are damaged are left out."""
  return readable_rows(path, EVENT)[0]


AROUND = 'went_around'  # the event of a run that does without a damaged file; `why` says of which
EVENT, ROW = {'event': str}, {'split': str, 'step': int}  # what every line of events.jsonl and of metrics.jsonl has


def read_rows(path: str | os.PathLike) -> list[dict[str, Any]]:
  """The rows of a .jsonl file. An incomplete last line, which a killed process can leave, is left out.

  Raises:
    UserError: a line is not a JSON object.
  """
  return [parse(line, where) for where, line in _lines(path)]


def _lines(path):
  """(where, bytes) of each complete line of a file."""
  path = epath.Path(path)
  lines = (_content(path) or b'').split(b'\n')
  # After the last newline there is nothing or an incomplete line.
  return [(f'{os.fspath(path)}, line {number}', line) for number, line in enumerate(lines[:-1], 1)]


def _content(path):
  """The bytes of a file, None if there is none."""
  try:
    with buckets.reached(path, os.fspath(path)) if buckets.is_bucket(path) else contextlib.nullcontext():
      return durable.patiently(path.read_bytes)
  except (FileNotFoundError, NotADirectoryError):
    return None


def parse(content: bytes, where: str) -> dict[str, Any]:
  """Parses a JSON object; raises UserError for anything else. `where` begins the message."""
  if not content:
    raise UserError(f'{where}: empty, expected a JSON object; was the file damaged?')
  try:
    value = json.loads(content.decode())
  except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, a number with thousands of digits, deep nesting
    raise UserError(f'{where}: not JSON ({_short(error)}); was the file damaged?') from error
  if not isinstance(value, dict):
    raise UserError(f'{where}: expected a JSON object, got {_short(value)}')
  return value


def _short(value):
  text = str(value) if isinstance(value, Exception) else repr(value)
  return text if len(text) <= 100 else text[:100] + ' ...'


def saved_steps(folder: str | os.PathLike) -> list[int]:
  """The steps of a run's finished checkpoints.

  On a disk, a checkpoint that is still being written has another name. In an object store, where nothing is renamed,
  Orbax marks those that are complete by a file.
  """
  checkpoints = epath.Path(folder) / CHECKPOINTS
  if not checkpoints.exists():
    return []
  complete = (lambda path: (path / _COMMITTED).exists()) if '://' in os.fspath(folder) else lambda path: True
  return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdecimal() and complete(path))


class Lines:
  """An append-only file of JSON lines, on a local disk or in an object store."""

  def __init__(self, path: str | os.PathLike):
    self._path = epath.Path(path)
    self._remote = '://' in os.fspath(path)
    self._uploaded = -1  # bytes
    self._uploading = threading.RLock()  # a slow upload of an older state must not end after a newer one
    if self._remote:  # object stores cannot append, so keep a local copy and upload it as a whole
      self._local = epath.Path(tempfile.mkdtemp()) / self._path.name
      if self._path.exists():
        self._path.copy(self._local)
    else:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._local = self._path
    self._open()

  def _open(self):
    self._file = open(self._local, 'ab', buffering=0)  # unbuffered, so that a full disk fails the write itself
    content = self._local.read_bytes()
    self.size, self.crc32 = len(content), zlib.crc32(content)  # of the file's content

  def append(self, row: dict[str, Any]) -> None:
    """Writes one line to the operating system, so that it survives if the process is killed.

    Raises:
      OSError: the write failed, for example because the disk is full. The file then ends with the previous line.
    """
    line = json.dumps({key: _finite(value) for key, value in row.items()}).encode() + b'\n'
    left = line
    try:
      while left:
        left = left[self._file.write(left):]
    except OSError:
      os.truncate(self._local, self.size)
      raise
    self.size, self.crc32 = self.size + len(line), zlib.crc32(line, self.crc32)

  def changed(self, size: int, crc32: int | None) -> str | None:
    """A message if the first `size` bytes do not exist or do not have the checksum; None if they do."""
    content = self._local.read_bytes()
    if len(content) < size:
      return (f'{self._path.name}: expected at least {size} bytes, its size when the checkpoint was saved, got '
              f'{len(content)}: lines were lost')
    if crc32 is not None and zlib.crc32(content[:size]) != crc32:
      return f'{self._path.name} has changed since the checkpoint was saved'
    return None

  def rewind(self, size: int) -> None:
    """Truncates the file to `size` bytes; the rest is appended to NAME.discarded.jsonl beside it."""
    if fault := self.changed(size, None):
      raise OSError(fault)
    with self._uploading:
      self._file.close()
      content = self._local.read_bytes()
      if tail := content[size:]:
        self._discard(tail if tail.endswith(b'\n') else tail + b'\n')
      os.truncate(self._local, size)
      self._open()
      self.upload(again=True)

  def _discard(self, tail):
    path = self._path.with_name(self._path.stem + '.discarded.jsonl')
    if self._remote:
      path.write_bytes((path.read_bytes() if path.exists() else b'') + tail)
    else:
      with open(path, 'ab') as file:
        file.write(tail)

  def upload(self, again: bool = False) -> None:
    """Makes all lines durable. Called before each save, and by `survival.beacon` from its thread.

    `again` uploads to a bucket even where nothing is new: the time of the object says that the run is alive.
    """
    if not self._remote:
      os.fsync(self._file.fileno())
      return
    with self._uploading:
      content = self._local.read_bytes()
      if again or len(content) != self._uploaded:
        durable.write(self._path, content)
        self._uploaded = len(content)

  def close(self) -> None:
    self.upload()
    self._file.close()


class NoLines:
  """A replacement of `Lines` for processes that do not write."""
  size = crc32 = 0

  def append(self, row: dict[str, Any]) -> None:
    pass

  def rewind(self, size: int) -> None:
    pass

  def upload(self, again: bool = False) -> None:
    pass

  def close(self) -> None:
    pass


def events_name(process: int) -> str:
  """The name of a process's event log: events.jsonl, then events-1.jsonl, events-2.jsonl and so on."""
  return EVENTS if process == 0 else EVENTS.replace('.', f'-{process}.')


class Events(Lines):
  """events.jsonl: timings, saves, restarts and warnings, each with the wall-clock time."""

  def _open(self):
    super()._open()
    content = self._local.read_bytes()
    if rest := len(content) - (content.rfind(b'\n') + 1):  # after a crash of the machine; this file is never rewound
      os.truncate(self._local, len(content) - rest)
      super()._open()

  def append(self, row: dict[str, Any]) -> None:
    super().append({'time': round(time.time(), 3), **row})


def _finite(value):
  """Replaces NaN and infinities by None, because JSON has neither."""
  return None if isinstance(value, float) and not math.isfinite(value) else value
