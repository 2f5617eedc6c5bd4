"""Folders of pictures, one folder per class; on a disk or in a bucket, with an index or without."""

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from etils import epath

from vit_jax.data import index as index_lib
from vit_jax.data import listing, pictures
from vit_jax.errors import UserError, nearest

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')
_SPLITS = ('train', 'val', 'test')
_LOOKED_AT = 16  # files whose size is compared with the index


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
  """Picture files and their labels int32 [N]. Pictures are read as RGB."""

  name: str
  class_names: tuple[str, ...]
  paths: Sequence[str]
  labels: np.ndarray
  root: pathlib.Path | epath.Path  # of the split
  sizes: Sequence[int] | None = None  # bytes, where they are known
  index: index_lib.Index | None = None
  channels = 3
  images = None

  @functools.cached_property
  def image_size(self):
    """(height, width) that all readable pictures share, or None. Headers are read until one differs."""
    if self.index is not None:
      return tuple(self.index.header['image_size'] or ()) or None
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
      return listing.read(self.paths[i])
    except OSError as error:
      raise pictures.BadPicture(error.strerror or str(error)) from error

  def where(self, i):
    return self.paths[i]

  def key(self, i):
    path = self.paths[i]
    try:
      size = int(self.sizes[i]) if self.sizes is not None else os.stat(path).st_size
    except OSError:  # gone since the folder was read: the run will say so
      size = -1
    return f'{os.path.relpath(path, os.fspath(self.root))} {size}'


class _Paths(Sequence):
  """The paths of an index's pictures, made as they are asked for: 14 million texts would take a gigabyte."""

  def __init__(self, root, class_names, index):
    self._root, self._class_names, self._index = os.fspath(root), class_names, index

  def __len__(self):
    return len(self._index.labels)

  def __getitem__(self, i):
    return f'{self._root}/{self._class_names[self._index.labels[i]]}/{self._index.names[int(i)]}'


class _Sizes(Sequence):
  """The sizes of an index's pictures, read when the first is asked for."""

  def __init__(self, index):
    self._index = index

  def __len__(self):
    return len(self._index.labels)

  def __getitem__(self, i):
    return int(self._index.sizes[i])


def open_folder(root: pathlib.Path | epath.Path, indexed: bool = True) -> dict[str, FolderSource]:
  """Opens the splits ROOT/{train,val,test}/CLASS/*.jpg, or a single split ROOT/CLASS/*.jpg; ROOT may be in a bucket.

  Hidden files and folders are ignored. Pictures may be in subfolders of a class folder.

  Args:
    root: the folder.
    indexed: whether an index in it, if there is one, replaces the listing of all class folders.

  Raises:
    UserError: there is no such folder, it has no classes, a class has no readable picture, or a class is not in train.
  """
  if not root.is_dir():
    near = nearest(root.name, listing.subfolders(root.parent)) if root.parent.is_dir() else ''
    raise UserError(f'folder:{root}: no such folder{near}')
  found = listing.subfolders(root)
  if 'train' not in found:
    if found and set(found) <= set(_SPLITS):
      raise UserError(f'{root}: has {", ".join(found)}, but no train')
    return {'train': _open_split(root, root, 'train', None, indexed)}
  sources = {'train': _open_split(root, root / 'train', 'train', None, indexed)}
  for split in _SPLITS[1:]:
    if split in found:
      sources[split] = _open_split(root, root / split, split, sources['train'].class_names, indexed)
  return sources


def write_index(root: pathlib.Path | epath.Path, sources: dict[str, FolderSource],
                fingerprints: dict[str, dict[str, str]]) -> list[epath.Path]:
  """Writes the index of each split; returns the paths.

  Args:
    root: the folder that was given to `open_folder`.
    sources: what it returned, without an index.
    fingerprints: {split: {`index.positions` of examples: their fingerprint}}.
  """
  out = []
  for split, source in sources.items():
    inside = lambda path, label, source=source: path[len(f'{source.root}/{source.class_names[label]}/'):]
    names = map(inside, source.paths, source.labels)
    sizes = source.sizes if source.sizes is not None else [os.stat(path).st_size for path in source.paths]
    out.append(index_lib.write(
        root, split, _state(listing.subfolders(source.root)), source.labels, names=list(names), sizes=sizes,
        class_names=source.class_names, image_size=source.image_size, fingerprints=fingerprints.get(split, {})))
  return out


def _open_split(root, folder, split, class_names, indexed):
  name, found = root.name, listing.subfolders(folder)
  if not found:
    loose = sum(1 for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    raise UserError(f'{folder}: ' + (f'{loose} pictures but no class folders; sort them into {folder}/CLASS/'
                                     if loose else f'empty; put pictures into {folder}/CLASS/'))
  if class_names is None and len(found) < 2:
    raise UserError(f'{folder}: one class, {found[0]!r}; a classifier needs two or more class folders')
  class_names = class_names or tuple(found)
  if index := index_lib.read(root, split, _state(found)) if indexed else None:
    return _indexed(folder, name, class_names, index)
  paths, labels, sizes = [], [], []
  for class_name in found:
    if class_name not in class_names:
      raise UserError(f'{folder / class_name}: train has no such class{nearest(class_name, class_names)}')
    files, bytes_each = listing.files(folder / class_name, SUFFIXES)
    _check_class(folder / class_name, files)
    paths += files
    sizes += bytes_each or []
    labels += [class_names.index(class_name)] * len(files)
  return FolderSource(name, class_names, tuple(paths), np.asarray(labels, np.int32), folder, sizes or None)


def _state(class_folders):
  """What an index says of the folder that it was made from; the sizes of some files are compared as well."""
  return hashlib.sha256('\n'.join(class_folders).encode(errors='surrogateescape')).hexdigest()[:16]


def _indexed(folder, name, class_names, index):
  """The source of an index, after a look at some of the files: other data must not be taken for those of the index."""
  again = f'Make it again: {index_lib.COMMAND}'
  if tuple(index.header['class_names']) != class_names:
    raise UserError(f'{index.path} has other classes than the folder. {again}')
  paths = _Paths(folder, class_names, index)
  source = FolderSource(name, class_names, paths, index.labels, folder, _Sizes(index), index)
  for i in np.linspace(0, len(source) - 1, min(_LOOKED_AT, len(source))).astype(int):
    path, size = source.paths[i], None
    try:
      size = epath.Path(path).stat().length
    except OSError:  # gone
      pass
    if size != source.sizes[i]:
      raise UserError(f'{index.path}: {path} has {size or "no"} bytes, and {source.sizes[i]} in the index. {again}')
  return source


def _check_class(folder, files):
  """Raises UserError for a class without any readable picture. Single bad pictures are handled when they are read."""
  if not files:
    raise UserError(f'{folder}: no pictures; expected files {" ".join(SUFFIXES)}')
  for path in files:
    try:
      pictures.size(listing.read(path))
      return
    except (pictures.BadPicture, OSError):
      continue
  raise UserError(f'{folder}: none of its {len(files)} pictures can be read')
