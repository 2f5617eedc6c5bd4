"""A full disk, put in words."""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from vit_jax import records
from vit_jax.errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(UserError):
  """No room for a log line or a checkpoint."""


@contextlib.contextmanager
def told_when_full(folder: os.PathLike, needed: Callable[[], int]) -> Iterator[None]:
  """Raises DiskFull where what happens inside ends in an error of a full disk.

  Args:
    folder: the run folder.
    needed: gives the bytes of a checkpoint.
  """
  try:
    yield
  except Exception as error:
    if is_full(error):
      raise full(folder, needed(), records.saved_steps(folder)) from error
    raise


def is_full(error: BaseException) -> bool:
  """Whether an error, or what led to it, is that of a full disk. TensorStore's has no number, only words."""
  return any((isinstance(cause, OSError) and cause.errno in _FULL) or os.strerror(errno.ENOSPC) in str(cause)
             for cause in _causes(error))


def full(folder: os.PathLike, needed: int, saved_steps: Sequence[int]) -> DiskFull:
  """What a person is told.

  Args:
    folder: the run folder.
    needed: bytes of a checkpoint.
    saved_steps: of the checkpoints that are there.
  """
  local = '://' not in os.fspath(folder)
  free = f'{_size(shutil.disk_usage(Path(folder)).free)} free, ' if local else ''
  goes_on = f'goes on at step {saved_steps[-1]}' if saved_steps else 'begins anew, as no checkpoint was saved yet'
  return DiskFull(f'the disk of {os.fspath(folder)} is full: {free}a checkpoint takes {_size(needed)}, and a new one '
                  'is written before an old one goes. All earlier checkpoints and log lines are intact; free some '
                  f'space, and the same command {goes_on}')


def _causes(error: BaseException | None) -> Iterator[BaseException]:
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def _size(count):
  for unit in ('bytes', 'kB', 'MB', 'GB'):
    if count < 1000:
      return f'{count:.3g} {unit}'
    count /= 1000
  return f'{count:.3g} TB'
