"""Folders of pictures, one folder per class."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable

import numpy as np

from vit_jax.data import pictures
from vit_jax.errors import UserError, nearest

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')
_SPLITS = ('train', 'val', 'test')


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
  """Picture files and their labels int32 [N]. Pictures are read as RGB."""

  name: str
  class_names: tuple[str, ...]
  paths: tuple[str, ...]
  labels: np.ndarray
  root: pathlib.Path  # of the split
  channels = 3
  images = None

  @functools.cached_property
  def image_size(self):
    """(height, width) that all readable pictures share, or None. Headers are read until one differs."""
    first = None
    for i in range(len(self)):
      try:
        size = pictures.size(self.read(i))
      except pictures.BadPicture:
        continue
      if first not in (None, size):
        return None
      first = size
    return first

  def __len__(self):
    return len(self.paths)

  def read(self, i):
    try:
      return pathlib.Path(self.paths[i]).read_bytes()
    except OSError as error:
      raise pictures.BadPicture(error.strerror or str(error)) from error

  def where(self, i):
    return self.paths[i]

  def key(self, i):
    path = self.paths[i]
    try:
      size = os.stat(path).st_size
    except OSError:  # gone since the folder was read: the run will say so
      size = -1
    return f'{os.path.relpath(path, self.root)} {size}'


def open_folder(root: pathlib.Path) -> dict[str, FolderSource]:
  """Opens the splits ROOT/{train,val,test}/CLASS/*.jpg, or a single split ROOT/CLASS/*.jpg.

  Hidden files and folders are ignored. Pictures may be in subfolders of a class folder.

  Raises:
    UserError: there is no such folder, it has no classes, a class has no readable picture, or a class is not in train.
  """
  if not root.is_dir():
    near = nearest(root.name, _subfolders(root.parent)) if root.parent.is_dir() else ''
    raise UserError(f'folder:{root}: no such folder{near}')
  subfolders = _subfolders(root)
  if 'train' not in subfolders:
    if subfolders and set(subfolders) <= set(_SPLITS):
      raise UserError(f'{root}: has {", ".join(subfolders)}, but no train')
    return {'train': _open_split(root, root.name, None)}
  sources = {'train': _open_split(root / 'train', root.name, None)}
  for split in _SPLITS[1:]:
    if split in subfolders:
      sources[split] = _open_split(root / split, root.name, sources['train'].class_names)
  return sources


def _open_split(folder, name, class_names):
  found = _subfolders(folder)
  if not found:
    loose = sum(1 for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    raise UserError(f'{folder}: ' + (f'{loose} pictures but no class folders; sort them into {folder}/CLASS/'
                                     if loose else f'empty; put pictures into {folder}/CLASS/'))
  if class_names is None and len(found) < 2:
    raise UserError(f'{folder}: one class, {found[0]!r}; a classifier needs two or more class folders')
  class_names = class_names or tuple(found)
  paths, labels = [], []
  for class_name in found:
    if class_name not in class_names:
      raise UserError(f'{folder / class_name}: train has no such class{nearest(class_name, class_names)}')
    files = _files(folder / class_name)
    _check_class(folder / class_name, files)
    paths += files
    labels += [class_names.index(class_name)] * len(files)
  return FolderSource(name, class_names, tuple(paths), np.asarray(labels, np.int32), folder)


def _check_class(folder, files):
  """Raises UserError for a class without any readable picture. Single bad pictures are handled when they are read."""
  if not files:
    raise UserError(f'{folder}: no pictures; expected files {" ".join(SUFFIXES)}')
  for path in files:
    try:
      pictures.size(pathlib.Path(path).read_bytes())
      return
    except (pictures.BadPicture, OSError):
      continue
  raise UserError(f'{folder}: none of its {len(files)} pictures can be read')


def _subfolders(folder):
  """The names of the folders in a folder. A link to the folder itself, or to one above it, is none of them."""
  above = os.path.join(os.path.realpath(folder), '')
  leads_back = lambda entry: entry.is_symlink() and above.startswith(os.path.join(os.path.realpath(entry.path), ''))
  return sorted(e.name for e in os.scandir(folder) if e.is_dir() and not _hidden(e.name) and not leads_back(e))


def _files(folder):
  """The picture files below a folder, sorted by path. A folder that links lead to again is read once."""
  found, seen = [], set()
  for parent, folders, files in os.walk(folder, followlinks=True):
    seen.add(os.path.realpath(parent))
    inside = sorted((os.path.islink(os.path.join(parent, name)), name) for name in folders if not _hidden(name))
    folders[:] = []
    for _, name in inside:  # links last
      if (real := os.path.realpath(os.path.join(parent, name))) not in seen:
        seen.add(real)
        folders.append(name)
    found += [os.path.join(parent, f) for f in files if f.lower().endswith(SUFFIXES) and not _hidden(f)]
  return sorted(found)


def _hidden(name):
  return name.startswith('.') or name == '__MACOSX'


def find(places: Iterable[str | os.PathLike]) -> list[pathlib.Path]:
  """The given files, and the pictures in the given folders except hidden ones.

  Raises:
    UserError: a place does not exist, or is a folder without pictures.
  """
  paths = []
  for place in map(pathlib.Path, places):
    if not place.exists():
      raise UserError(f'{place}: no such file or folder')
    below = sorted(path for path in place.rglob('*') if path.suffix.lower() in SUFFIXES and path.is_file()
                   and not any(part.startswith('.') for part in path.relative_to(place).parts))
    if place.is_dir() and not below:
      raise UserError(f'{place}: expected a folder with pictures ({", ".join(SUFFIXES)}), found none')
    paths += below if place.is_dir() else [place]
  return paths
