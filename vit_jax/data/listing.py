"""What is in a folder, on a disk or in a bucket. Hidden files and folders are ignored."""

import os
import pathlib

from etils import epath

from vit_jax import durable


def is_remote(place: os.PathLike | str) -> bool:
  """Whether it is in a bucket."""
  return '://' in os.fspath(place)


def path(place: str, inside: str = '') -> pathlib.Path | epath.Path:
  """The folder `inside` a place, which is a path or a bucket path."""
  return epath.Path(place) / inside if is_remote(place) else pathlib.Path(place, os.path.expanduser(inside))


def read(file: str) -> bytes:
  """The content of a file. Raises OSError, or `durable.Unreachable`."""
  return durable.patiently(epath.Path(file).read_bytes) if is_remote(file) else pathlib.Path(file).read_bytes()


def subfolders(folder: os.PathLike) -> list[str]:
  """The names of the folders in a folder. A link to the folder itself, or to one above it, is none of them."""
  if is_remote(folder):
    files, place = _store(folder)
    names = (_last(entry['name']) for entry in durable.patiently(lambda: files.ls(place, detail=True))
             if entry['type'] == 'directory')
    return sorted(name for name in names if name and not _hidden(name))
  above = os.path.join(os.path.realpath(folder), '')
  leads_back = lambda entry: entry.is_symlink() and above.startswith(os.path.join(os.path.realpath(entry.path), ''))
  return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not _hidden(e.name) and not leads_back(e))


def files(folder: os.PathLike, suffixes: tuple[str, ...]) -> tuple[list[str], list[int] | None]:
  """(the files below a folder that have one of the suffixes, sorted by path; their sizes where these come for free)."""
  if is_remote(folder):
    return _remote_files(folder, suffixes)
  found, seen = [], set()
  for parent, folders, names in os.walk(folder, followlinks=True):
    seen.add(os.path.realpath(parent))
    inside = sorted((os.path.islink(os.path.join(parent, name)), name) for name in folders if not _hidden(name))
    folders[:] = []
    for _, name in inside:  # links last
      if (real := os.path.realpath(os.path.join(parent, name))) not in seen:  # what links lead to again is read once
        seen.add(real)
        folders.append(name)
    found += [os.path.join(parent, f) for f in names if f.lower().endswith(suffixes) and not _hidden(f)]
  return sorted(found), None


def _remote_files(folder, suffixes):
  store, place = _store(folder)
  scheme = os.fspath(folder).partition('://')[0]
  entries = durable.patiently(lambda: store.find(place, detail=True))
  inside = lambda name: name[len(place.rstrip('/')) + 1:].split('/')
  found = sorted((f'{scheme}://{name}', entry['size']) for name, entry in entries.items()
                 if name.lower().endswith(suffixes) and not any(map(_hidden, inside(name))))
  return [name for name, _ in found], [size for _, size in found]


def _store(folder):
  """fsspec's view of a bucket, which lists sizes with names."""
  import fsspec
  return fsspec.core.url_to_fs(os.fspath(folder))


def _last(name):
  return name.rstrip('/').rpartition('/')[2]


def _hidden(name):
  return name.startswith('.') or name == '__MACOSX'
