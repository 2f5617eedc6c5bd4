"""One process a folder: a lock that the system gives back when its holder ends, however it ends."""

import os
from pathlib import Path
from typing import IO

LOCK = 'lock'
BUSY = 75  # exit code of a job whose folder another process holds (EX_TEMPFAIL of sysexits.h)


def take(folder: os.PathLike) -> IO | None:
  """The lock of a folder, held while the file is open; None where another process has it."""
  import fcntl  # not on Windows
  folder = Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  file = open(folder / LOCK, 'a')
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    file.close()
    return None
  return file


def is_held(folder: os.PathLike) -> bool:
  """Whether a process of this machine holds the lock of a folder."""
  if not (Path(folder) / LOCK).exists():
    return False
  lock = take(folder)
  if lock:
    lock.close()
  return lock is None
