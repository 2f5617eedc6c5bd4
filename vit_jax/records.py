"""What a run leaves behind: run.json, metrics.jsonl and events.jsonl. Written and read here only.

metrics.jsonl holds no wall-clock time, so the file of a resumed run is byte-equal to an undisturbed one's; whatever
depends on the clock goes to events.jsonl.
"""

import json
import math
import os
import tempfile
import time
from typing import Any

from etils import epath

RUN, METRICS, EVENTS = 'run.json', 'metrics.jsonl', 'events.jsonl'


def write_run(folder: os.PathLike, fields: dict[str, Any]) -> None:
  """Writes run.json whole: a reader sees the old file or the new one, never half of it."""
  path = epath.Path(folder) / RUN
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(RUN + '.tmp')
  temporary.write_text(json.dumps(fields, indent=2) + '\n')
  temporary.replace(path)


def read_run(folder: os.PathLike) -> dict[str, Any] | None:
  """run.json of a run folder, None where there is none."""
  path = epath.Path(folder) / RUN
  return json.loads(path.read_text()) if path.exists() else None


def read_rows(path: os.PathLike) -> list[dict[str, Any]]:
  """The rows of a .jsonl file; a last line that was cut off by a kill is left out."""
  path = epath.Path(path)
  lines = path.read_text().split('\n') if path.exists() else []
  return [json.loads(line) for line in lines[:-1]]  # what follows the last newline is empty or half a line


class Lines:
  """An append-only file of JSON lines, on a local disk or (by whole uploads) in an object store."""

  def __init__(self, path: os.PathLike):
    self._path = epath.Path(path)
    self._remote = '://' in os.fspath(path)
    if self._remote:  # object stores cannot append: keep a local copy, upload it whole
      self._local = epath.Path(tempfile.mkdtemp()) / self._path.name
      if self._path.exists():
        self._path.copy(self._local)
    else:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._local = self._path
    self._file = open(self._local, 'ab')

  def append(self, row: dict[str, Any]) -> None:
    """Writes one line and hands it to the operating system: a killed process loses nothing."""
    line = json.dumps({key: _finite(value) for key, value in row.items()})
    self._file.write(line.encode() + b'\n')
    self._file.flush()

  @property
  def size(self) -> int:
    """Bytes so far."""
    return self._file.tell()

  def rewind(self, size: int) -> None:
    """Cuts the file back to `size` bytes; the tail is kept in NAME.discarded.jsonl beside it."""
    self._file.close()
    content = self._local.read_bytes()
    if len(content) < size:
      raise OSError(f'{self._path} has {len(content)} bytes, {size} when the checkpoint was saved: lines were lost')
    if tail := content[size:]:
      discarded = self._path.with_name(self._path.stem + '.discarded.jsonl')
      kept = discarded.read_bytes() if discarded.exists() else b''
      discarded.write_bytes(kept + tail + (b'' if tail.endswith(b'\n') else b'\n'))
    os.truncate(self._local, size)
    self._file = open(self._local, 'ab')
    self.upload()

  def upload(self) -> None:
    """Makes what was written durable: called before each save."""
    self._file.flush()
    if self._remote:
      self._local.copy(self._path, overwrite=True)
    else:
      os.fsync(self._file.fileno())

  def close(self) -> None:
    self.upload()
    self._file.close()


class NoLines:
  """In the place of `Lines` for a process that does not write."""
  size = 0

  def append(self, row: dict[str, Any]) -> None:
    pass

  def rewind(self, size: int) -> None:
    pass

  def upload(self) -> None:
    pass

  def close(self) -> None:
    pass


def events_name(process: int) -> str:
  """events.jsonl, of further processes events-1.jsonl and so on."""
  return EVENTS if process == 0 else EVENTS.replace('.', f'-{process}.')


class Events(Lines):
  """events.jsonl: timings, saves, restarts, warnings, each with its wall-clock time."""

  def append(self, row: dict[str, Any]) -> None:
    super().append({'time': round(time.time(), 3), **row})


def _finite(value):
  """JSON has no NaN: a number that is none is written as null."""
  return None if isinstance(value, float) and not math.isfinite(value) else value
