"""Whether a folder can be written: asked before data are opened and weights are read."""

import os
import pathlib

from vit_jax import buckets
from vit_jax.errors import UserError

_LONGEST_NAME, _LONGEST_PATH = 255, 4096  # bytes, of Linux
_INSIDE = 300  # that names of files in a run folder add to its path


def check(workdir: os.PathLike | str) -> None:
  """Raises UserError for a folder that cannot be written: by its name, what is in its place, or permissions."""
  place = os.fspath(workdir)
  flag = f'--workdir={place if len(place) <= 100 else f"{place[:100]} ..."}'
  if not place or '\0' in place:
    raise UserError(f'--workdir={place!r}: must be the path of a folder')
  if buckets.is_bucket(place):
    buckets.check_run(place, flag)
    buckets.check(place, flag)
    return
  path = pathlib.Path(place).absolute()
  if long := [part for part in path.parts if len(os.fsencode(part)) > _LONGEST_NAME]:
    raise UserError(f'{flag}: a name of {len(os.fsencode(long[0]))} bytes; must be at most {_LONGEST_NAME}')
  if len(os.fsencode(path)) > _LONGEST_PATH - _INSIDE:
    raise UserError(f'{flag}: a path of {len(os.fsencode(path))} bytes; must be at most {_LONGEST_PATH - _INSIDE}')
  there = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
  if not there.is_dir():
    raise UserError(f'{flag}: {there} is not a folder; give another --workdir')
  if not os.access(there, os.W_OK | os.X_OK):
    raise UserError(f'{flag}: no permission to write in {there}; give another --workdir')

