"""What is in a folder, on a disk or in a bucket. Hidden files and folders are ignored.

On a disk, links are followed, but not to what is above them. In a bucket there are none.
"""

import os
import pathlib
from collections.abc import Set
from typing import NamedTuple

from etils import epath

from vit_jax import buckets, durable
from vit_jax.data import folder_names


class File(NamedTuple):
  """A picture's path, the file that it is, whether a link leads there, and its bytes where these come for free."""
  path: str
  real: str
  linked: bool
  size: int | None = None


def path(place: str, inside: str = '') -> pathlib.Path | epath.Path:
  """The folder `inside` a place, which is a path or a bucket path."""
  return epath.Path(place) / inside if buckets.is_bucket(place) else pathlib.Path(place, os.path.expanduser(inside))


def read(file: str) -> bytes:
  """The content of a file. Raises OSError, or `durable.Unreachable`."""
  return durable.patiently(epath.Path(file).read_bytes) if buckets.is_bucket(file) else pathlib.Path(file).read_bytes()


def real(place: os.PathLike | str) -> str:
  """The place that it is after all links."""
  return os.fspath(place) if buckets.is_bucket(place) else os.path.realpath(place)


def subfolders(folder: os.PathLike) -> list[str]:
  """The names of the folders in a folder. A link to the folder itself, or to one above it, is none of them."""
  if buckets.is_bucket(folder):
    return _remote_names(folder, 'directory')
  above = os.path.join(os.path.realpath(folder), '')
  leads_back = lambda entry: entry.is_symlink() and above.startswith(os.path.join(os.path.realpath(entry.path), ''))
  return sorted(e.name for e in os.scandir(folder)
                if e.is_dir() and not folder_names.hidden(e.name) and not leads_back(e))


def loose(folder: os.PathLike) -> list[str]:
  """The names of the pictures that are in the folder itself."""
  names = _remote_names(folder, 'file') if buckets.is_bucket(folder) else sorted(os.listdir(folder))
  return [name for name in names if folder_names.is_picture(name)]


def files(folder: os.PathLike, elsewhere: Set[str] = frozenset()) -> tuple[list[File], list[str]]:
  """(pictures, paths of pictures of kinds that are not read) below a folder, both sorted by path.

  A folder is read once, however many links lead to it. Not followed are links to folders above, in which other classes
  are, and to the folders `elsewhere`, which are those of all classes.
  """
  if buckets.is_bucket(folder):
    return _remote_files(folder)
  top = os.path.realpath(folder)
  above = lambda real: os.path.join(top, '').startswith(os.path.join(real, '')) and real != top
  found, others, seen, waiting = [], [], {top}, [(os.fspath(folder), top, os.path.islink(folder))]
  new = lambda real: real not in seen and real not in elsewhere
  while waiting:
    place, real_place, linked = waiting.pop()
    links = []
    for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
      if folder_names.hidden(entry.name):
        continue
      link = entry.is_symlink()
      real_path = os.path.realpath(entry.path) if link else os.path.join(real_place, entry.name)
      if entry.is_dir():
        if link:
          links.append((entry.path, real_path))
        elif new(real_path):
          seen.add(real_path)
          waiting.append((entry.path, real_path, linked))
      elif folder_names.is_picture(entry.name):
        found.append(File(entry.path, real_path, linked or link))
      elif folder_names.is_other_picture(entry.name):
        others.append(entry.path)
    for path_, real_path in links:
      if new(real_path) and not above(real_path):
        seen.add(real_path)
        waiting.insert(0, (path_, real_path, True))  # after all that is here itself
  return sorted(found), sorted(others)


def _remote_files(folder):
  store, place = _store(folder)
  scheme, start = os.fspath(folder).partition('://')[0], len(place.rstrip('/')) + 1
  found, others = [], []
  for name, entry in durable.patiently(lambda: store.find(place, detail=True)).items():
    if any(map(folder_names.hidden, name[start:].split('/'))):
      continue
    where = f'{scheme}://{name}'
    if folder_names.is_picture(_last(name)):
      found.append(File(where, where, False, entry['size']))
    elif folder_names.is_other_picture(_last(name)):
      others.append(where)
  return sorted(found), sorted(others)


def _remote_names(folder, kind):
  store, place = _store(folder)
  entries = durable.patiently(lambda: store.ls(place, detail=True))
  names = (_last(entry['name']) for entry in entries if entry['type'] == kind)
  return sorted(name for name in names if name and not folder_names.hidden(name))


def _store(folder):
  """fsspec's view of a bucket, which lists sizes with names."""
  import fsspec
  return fsspec.core.url_to_fs(os.fspath(folder))


def _last(name):
  return name.rstrip('/').rpartition('/')[2]
