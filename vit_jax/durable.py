"""Small files, written whole: after a crash of the process or the machine there is the old file or the new one.

Object stores that do not answer are asked again for about two minutes.
"""

import os
import pathlib
import random
import time
from collections.abc import Callable
from typing import TypeVar

from etils import epath

T = TypeVar('T')
_TRIES, _FIRST_PAUSE_S = 9, 0.5  # with doubling pauses: two minutes
# What another try does not cure; neither do HTTP's codes 400 to 499, other than these two (timeout, too many requests).
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError,
          KeyError, TypeError, ValueError, MemoryError)
_TRY_AGAIN = (408, 429)


class Unreachable(Exception):
  """An object store did not answer for minutes. The same command resumes the run when it does."""


def patiently(act: Callable[[], T]) -> T:
  """The result of `act`, which reads or writes in an object store; tried again, with growing pauses, if that may help.

  Raises:
    Unreachable: it failed each time.
  """
  for tried in range(1, _TRIES + 1):
    try:
      return act()
    except _FINAL:
      raise
    except Exception as error:  # each client has classes of its own
      code = getattr(error, 'code', None) or getattr(error, 'status', None)
      if isinstance(code, int) and 400 <= code < 500 and code not in _TRY_AGAIN:
        raise
      if type(error).__module__.startswith('google.auth') and type(error).__name__ != 'TransportError':
        raise  # there are no credentials, or they are refused
      if isinstance(error, OSError) and error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
        raise  # of this machine's disk
      if tried == _TRIES:
        raise Unreachable(f'an object store does not answer: {type(error).__name__}: {error}') from error
      time.sleep(_FIRST_PAUSE_S * 2 ** (tried - 1) * random.uniform(0.75, 1.25))
  raise AssertionError



def write(path: os.PathLike | str, content: str | bytes) -> None:
  """Writes a file, local or in a bucket, and creates its folder. Local files are on disk when this returns.

  Raises:
    OSError: such as for a full disk; the old file is then unchanged.
  """
  content = content.encode() if isinstance(content, str) else content
  if '://' in os.fspath(path):  # object stores replace objects as a whole
    patiently(lambda: epath.Path(path).write_bytes(content))
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_bytes(content)
    replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def replace(temporary: os.PathLike | str, path: os.PathLike | str) -> None:
  """Renames a complete local file to `path` in the same folder, after its content is on disk."""
  _sync(temporary)
  os.replace(temporary, path)
  _sync(pathlib.Path(path).parent)  # the new name is an entry of the folder


def _sync(path):
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
