"""Errors of a full disk, turned into a message that says what to do."""

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
  """There is no space for a log line or a checkpoint."""


@contextlib.contextmanager
def explained(folder: os.PathLike, needed: Callable[[], int]) -> Iterator[None]:
  """A context in which the error of a full disk is raised as DiskFull.

  Args:
    folder: the run folder.
    needed: returns the bytes of a checkpoint.
  """
  try:
    yield
  except Exception as error:
    if is_full(error):
      raise full(folder, needed(), records.saved_steps(folder)) from error
    raise


def is_full(error: BaseException) -> bool:
  """Whether an error or one of its causes is that of a full disk. TensorStore's has no errno, only a message."""
  return any((isinstance(cause, OSError) and cause.errno in _FULL) or os.strerror(errno.ENOSPC) in str(cause)
             for cause in _causes(error))


def full(folder: os.PathLike, needed: int, saved_steps: Sequence[int]) -> DiskFull:
  """The error for a run on a full disk.

  Args:
    folder: the run folder.
    needed: bytes of a checkpoint.
    saved_steps: the steps of the existing checkpoints.
  """
  local = '://' not in os.fspath(folder)
  free = f'{_size(shutil.disk_usage(Path(folder)).free)} free, ' if local else ''
  resumes = f'resumes at step {saved_steps[-1]}' if saved_steps else 'starts again, as no checkpoint has been saved yet'
  return DiskFull(f'the disk of {os.fspath(folder)} is full: {free}a checkpoint takes {_size(needed)}, and a new one '
                  'is written before an old one is deleted. All earlier checkpoints and log lines are intact. Free '
                  f'some space; then the same command {resumes}')


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
