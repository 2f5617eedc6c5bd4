"""A lock that allows one process per folder. The system releases it when its holder ends, however that ends.

It is flock on a file in the folder, which works across machines that share a file system. Buckets have no locks: for
them the file is in this machine's temporary folder, and only a second process on this machine is detected.
"""

import contextlib
import hashlib
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from vit_jax.errors import UserError

LOCK = 'lock'
BUSY = 75  # exit code of a job whose folder another process holds (EX_TEMPFAIL of sysexits.h)

_TRIES, _PAUSE_SECONDS = 5, 0.2  # retries, as `is_held` of another process takes the lock for a moment
_ours: dict[Path, IO] = {}  # locks that this process has taken; flock would refuse them a second time


@contextlib.contextmanager
def hold(folder: os.PathLike) -> Iterator[None]:
  """Holds the lock of a folder, unless this process holds it already.

  Raises:
    UserError: another process holds it; the message names it.
  """
  if _is_ours(folder):
    yield
    return
  for _ in range(_TRIES):
    if lock := take(folder):
      break
    time.sleep(_PAUSE_SECONDS)
  else:
    owner = _file(folder).read_text().strip() or 'unknown'
    raise UserError(f'{os.fspath(folder)}: another process is training there ({owner}); wait for it, stop it, or give '
                    'another --workdir')
  with lock:
    yield


def take(folder: os.PathLike) -> IO | None:
  """Takes the lock of a folder, which is held while the returned file is open; None if another process holds it."""
  import fcntl  # not on Windows
  path = _file(folder)
  path.parent.mkdir(parents=True, exist_ok=True)
  file = open(path, 'a')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  with contextlib.suppress(OSError):  # the holder, for people; a full disk must not prevent locking
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()} since {time.strftime("%Y-%m-%d %H:%M:%S")}\n')
    file.flush()
  _ours[path] = file
  return file


def is_held(folder: os.PathLike) -> bool:
  """Whether a process holds the lock of a folder."""
  import fcntl
  if _is_ours(folder):
    return True
  if not _file(folder).exists():
    return False
  with open(_file(folder)) as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      return True
  return False


def _is_ours(folder):
  file = _ours.get(_file(folder))
  return file is not None and not file.closed


def _file(folder):
  """The file that is locked, as an absolute path."""
  folder = os.fspath(folder)
  if '://' in folder:
    name = f'vit_jax-{os.getuid()}-{hashlib.sha256(folder.rstrip("/").encode()).hexdigest()[:16]}.lock'
    return Path(tempfile.gettempdir(), name)
  return Path(folder).absolute() / LOCK
