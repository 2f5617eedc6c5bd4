"""Folders of pictures, one folder per class; on a disk or in a bucket, with an index or without."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import os
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from etils import epath

from vit_jax import buckets
from vit_jax.data import class_folders, folder_names, listing, pictures
from vit_jax.data import index as index_lib
from vit_jax.errors import UserError, nearest
from vit_jax.printable import printable, say

_LOOKED_AT = 2_000  # pictures of a split that are decoded before a run begins: a few seconds
_COMPARED = 16  # files whose size is compared with the index


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
  """Picture files and their labels, int32 [N] or uint8 [N, C], and perhaps captions. Pictures are read as RGB."""

  name: str
  class_names: tuple[str, ...]
  paths: Sequence[str]
  labels: np.ndarray
  root: pathlib.Path | epath.Path  # of the split
  sizes: Sequence[int] | None = None  # bytes, where they are known
  index: index_lib.Index | None = None
  captions: Sequence[tuple[str, ...]] | None = None
  state: str = ''  # what an index says of its folder
  channels = 3
  images = None

  @property
  def several_labels(self):
    return self.labels.ndim == 2

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

  def __getstate__(self):  # workers read pictures
    return self.__dict__ | {'captions': None}

  def unreadable(self) -> list[str]:
    """'PATH: REASON' of the pictures that cannot be read, of `_LOOKED_AT` at most, spread over all.

    Says how many are nearly black because they use few of their 16 bits. With an index nothing is read: both are those
    of the time when it was made.
    """
    return [f'{folder_names.text(self.where(i))}: {error}' for i, error in self.faults['bad']]

  @functools.cached_property
  def faults(self) -> dict[str, list]:
    """{'bad': [[position, why it cannot be read]], 'dark': [positions]} of the pictures that are looked at."""
    if self.index is not None:
      faults = self.index.header['faults']
    else:
      every = range(0, len(self), -(-len(self) // _LOOKED_AT))
      with concurrent.futures.ThreadPoolExecutor() as threads:
        found = list(zip(every, threads.map(self._look, every)))
      faults = {'bad': [[i, error] for i, (error, _) in found if error],
                'dark': [i for i, (_, unused) in found if unused]}
    if dark := faults['dark']:
      example = printable(folder_names.text(self.where(dark[0])))
      say(f'{len(dark):,} pictures have 16 bits and use at most 12 of them, such as {example}: they will be nearly '
          'black. Scale them to all 16 bits, or save them with 8', sys.stderr)
    return faults

  def _look(self, i):
    """(why picture i cannot be read, or ''; whether it leaves upper bits unused)."""
    try:
      record = self.read(i)
      pictures.decode(record, self.channels, None, (8, 8))
      return '', pictures.leaves_bits_unused(record)
    except pictures.BadPicture as error:
      return str(error) or 'unreadable', False

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

  def __init__(self, root, folders, index):
    self._root, self._folders, self._index = os.fspath(root), folders, index

  def __len__(self):
    return len(self._index.labels)

  def __getitem__(self, i):
    return f'{self._root}/{self._folders[self._index.labels[i]]}{self._index.name(i)}'


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

  Splits go by the names that people use for them (`folder_names.split_of`). Hidden files and folders are ignored.
  Pictures may be in subfolders of a class folder. Links are followed, but not to what is above them, and each file is
  read once. What is left out is said: pictures outside of a class, pictures of kinds that are not read.

  Args:
    root: the folder.
    indexed: whether an index in it, if there is one, replaces the listing of all class folders.

  Returns:
    'train', and 'val' and 'test' if they are there with classes; without 'train' if there are only others.

  Raises:
    UserError: there is no such folder, it has no classes, a class has no readable picture, or a class is not in train.
  """
  check_is_there(root, 'folder')
  found = class_folders.splits(root)
  if not found:
    return {'train': _open_split(root, root, 'train', None, indexed)}
  sources, of_all = {}, sorted({folder_names.text(name) for place in found.values()
                                for name in listing.subfolders(place)})
  for split, folder in found.items():  # train first: it knows the classes
    if split != 'train' and not listing.subfolders(folder):
      class_folders.say_unlabelled(folder, split)
      continue
    known = sources['train'].class_names if 'train' in sources else None if split == 'train' else of_all
    sources[split] = _open_split(root, folder, split, known, indexed)
  if not sources:
    raise UserError(f'{root}: has {", ".join(sorted(found))}, but none with class folders')
  return sources


def check_is_there(root: pathlib.Path | epath.Path, kind: str) -> None:
  """Raises UserError, with the nearest name, where there is no such folder of a source KIND:DIR."""
  if not root.is_dir():
    near = nearest(root.name, listing.subfolders(root.parent)) if root.parent.is_dir() else ''
    raise UserError(f'{kind}:{root}: no such folder{near}')


def _open_split(root, folder, split, known, indexed):
  class_names = class_folders.class_names(folder, known)
  if index := index_lib.read(root, split, state(folder)) if indexed else None:
    return indexed_source(folder, root.name, class_names, index)
  found = class_folders.files(folder, class_names)
  files = [file for each in found.values() for file in each]
  number = {name: label for label, name in enumerate(class_names)}
  labels = np.repeat(np.asarray([number[folder_names.text(name)] for name in found], np.int32),
                     [len(each) for each in found.values()])
  sizes = [file.size for file in files] if buckets.is_bucket(folder) else None
  return FolderSource(root.name, class_names, tuple(file.path for file in files), labels, folder, sizes,
                      state=state(folder))


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
    if bad := source.unreadable():
      say(f'{split}: {len(bad):,} pictures cannot be read, such as {printable(bad[0])}; a run stops, or leaves them '
          'out with data.on_error "skip"', sys.stderr)
    folders = _folders(source.root, source.class_names)
    names = [path[len(f'{source.root}/{folders[label]}'):] for path, label in zip(source.paths, source.labels)]
    sizes = source.sizes if source.sizes is not None else [os.stat(path).st_size for path in source.paths]
    out.append(index_lib.write(
        root, split, source.state, source.labels, names=names, sizes=sizes, captions=source.captions,
        class_names=source.class_names, image_size=source.image_size, faults=source.faults,
        fingerprints=fingerprints.get(split, {})))
  return out


def state(folder: os.PathLike, more: str = '') -> str:
  """What an index says of the folder that it was made from; the sizes of some files are compared as well."""
  lines = [*listing.subfolders(folder), *([more] if more else [])]
  return hashlib.sha256('\n'.join(lines).encode(errors='surrogateescape')).hexdigest()[:16]


def _folders(split, class_names):
  """'FOLDER/' of each class, whose name need not be text; None where a split has none of a class; [''] without any."""
  of_class = {folder_names.text(name): f'{name}/' for name in listing.subfolders(split)}
  return [of_class.get(name) for name in class_names] or ['']


def indexed_source(folder: pathlib.Path | epath.Path, name: str, class_names: tuple[str, ...],
                   index: index_lib.Index) -> FolderSource:
  """The source of an index, after a look at some of the files: other data must not be taken for those of the index."""
  again = f'Make it again: {index_lib.COMMAND}'
  if tuple(index.header['class_names']) != class_names:
    raise UserError(f'{index.path} has other classes than the folder. {again}')
  paths = _Paths(folder, _folders(folder, class_names), index)
  source = FolderSource(name, class_names, paths, index.labels, folder, _Sizes(index), index, index.captions)
  faulty = [i for i, _ in index.header['faults']['bad'][:_COMPARED]]  # which may have been replaced since
  for i in [*np.linspace(0, len(source) - 1, min(_COMPARED, len(source))).astype(int), *faulty]:
    path, size = source.paths[i], None
    try:
      size = epath.Path(path).stat().length
    except OSError:  # gone
      pass
    if size != source.sizes[i]:
      raise UserError(f'{index.path}: {path} has {size or "no"} bytes, and {source.sizes[i]} in the index. {again}')
  return source
