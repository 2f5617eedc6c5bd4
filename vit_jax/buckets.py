"""Folders in buckets: what is kept where, and what is said of one that cannot be reached.

Data and logs are read from any store that fsspec knows. Run folders, with their checkpoints, are in Cloud Storage:
Orbax opens no other store (its tensorstore_utils.py).
"""

import contextlib
import os
from collections.abc import Iterator

from etils import epath

from vit_jax import durable
from vit_jax.errors import UserError

SOURCES = ('folder', 'pairs', 'csv')  # the kinds of data.source that are read from buckets
_OF_RUNS = 'gs'
_CLIENTS = {'gs': 'gcsfs', 's3': 's3fs'}  # packages by which fsspec reaches a store


def is_bucket(place: os.PathLike | str) -> bool:
  """Whether a path is in a bucket."""
  return '://' in os.fspath(place)


def check(place: os.PathLike | str, what: str) -> None:
  """Raises UserError for a path in a bucket that cannot be reached from here; there need be nothing at it.

  Args:
    place: any path; those on disks pass.
    what: begins the message: the flag or key with its value.
  """
  if is_bucket(place):
    with reached(place, what):
      durable.patiently(epath.Path(place).exists)


def check_run(place: os.PathLike | str, what: str) -> None:
  """Raises UserError for a path in a store where no checkpoint can be kept; `what` begins the message."""
  scheme = os.fspath(place).partition('://')[0]
  if is_bucket(place) and scheme != _OF_RUNS:
    raise UserError(f'{what}: checkpoints are kept on disks and in Cloud Storage, not in {scheme}://; must be a local '
                    'folder or gs://BUCKET/PATH')


@contextlib.contextmanager
def reached(place: os.PathLike | str, what: str) -> Iterator[None]:
  """A context that reads from a bucket; errors of its store are raised as UserError, which begins with `what`.

  `durable.Unreachable` passes, because the same command may succeed later; so does the absence of a file.
  """
  scheme = os.fspath(place).partition('://')[0]
  try:
    yield
  except (UserError, durable.Unreachable, FileNotFoundError, NotADirectoryError):
    raise
  except ImportError as error:
    package = _CLIENTS.get(scheme)
    install = f'install it, `pip install {package}`, or ' if package else ''
    raise UserError(f'{what}: {error}; {install}give a local folder') from error
  except Exception as error:  # each store has errors of its own
    if _unknown(error):
      raise UserError(f'{what}: {scheme}:// is not known; must be a local folder, gs://BUCKET/PATH or s3://BUCKET/PATH'
                      ) from error
    raise UserError(f'{what}: cannot be reached: {type(error).__name__}: {error}') from error


def _unknown(error):
  """Whether epath or fsspec knows no store of this name."""
  return isinstance(error, KeyError) or isinstance(error, ValueError) and 'Protocol not known' in str(error)
