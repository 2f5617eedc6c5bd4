"""Folders of pictures, one folder per class."""

import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import sys
from typing import NamedTuple

import numpy as np

from vit_jax.data import folder_names, pictures
from vit_jax.errors import UserError, nearest
from vit_jax.printable import printable, say

_LOOKED_AT = 2_000  # pictures of a split that are decoded before a run begins: a few seconds


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

  def unreadable(self) -> list[str]:
    """'PATH: REASON' of the pictures that cannot be read, of `_LOOKED_AT` at most, spread over all.

    Says how many are nearly black because they use few of their 16 bits.
    """
    every = range(0, len(self), -(-len(self) // _LOOKED_AT))
    with concurrent.futures.ThreadPoolExecutor() as threads:
      found = [(folder_names.text(self.where(i)), *seen) for i, seen in zip(every, threads.map(self._look, every))]
    if dark := [path for path, error, unused in found if unused]:
      say(f'{len(dark):,} pictures have 16 bits and use at most 12 of them, such as {printable(dark[0])}: they will be '
          'nearly black. Scale them to all 16 bits, or save them with 8', sys.stderr)
    return [f'{path}: {error}' for path, error, _ in found if error]

  def _look(self, i):
    """(why picture i cannot be read, or None; whether it leaves upper bits unused)."""
    try:
      record = self.read(i)
      pictures.decode(record, self.channels, None, (8, 8))
      return None, pictures.leaves_bits_unused(record)
    except pictures.BadPicture as error:
      return error, False

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

  Splits go by the names that people use for them (`folder_names.split_of`). Hidden files and folders are ignored.
  Pictures may be in subfolders of a class folder. Links are followed, but not to what is above them, and each file is
  read once. What is left out is said: pictures outside of a class, pictures of kinds that are not read.

  Returns:
    'train', and 'val' and 'test' if they are there with classes; without 'train' if there are only others.

  Raises:
    UserError: there is no such folder, it has no classes, a class has no readable picture, or a class is not in train.
  """
  if not root.is_dir():
    near = nearest(root.name, _subfolders(root.parent)) if root.parent.is_dir() else ''
    raise UserError(f'folder:{root}: no such folder{near}')
  found = _splits(root)
  if not found:
    return {'train': _open_split(root, root.name, None)}
  sources, of_all = {}, tuple(sorted({folder_names.text(name) for place in found.values()
                                      for name in _subfolders(place)}))
  for split, folder in sorted(found.items(), key=lambda item: item[0] != 'train'):  # train knows the classes
    if split != 'train' and not _subfolders(folder):
      _say_unlabelled(folder, split)
      continue
    known = sources['train'].class_names if 'train' in sources else None if split == 'train' else of_all
    sources[split] = _open_split(folder, root.name, known)
  if not sources:
    raise UserError(f'{root}: has {", ".join(sorted(found))}, but none with class folders')
  return sources


def _splits(root):
  """{'train', 'val', 'test': folder} of a folder of splits; {} for a folder of classes."""
  subfolders, found = _subfolders(root), {}
  for name in subfolders:
    if split := folder_names.split_of(name):
      if split in found:
        raise UserError(f'{root}: {found[split].name!r} and {name!r} both mean {split}; expected one of them')
      found[split] = root / name
  others = [name for name in subfolders if folder_names.split_of(name) is None and _files(root / name)[0]]
  if 'train' not in found and (others or len(found) < len(subfolders)):
    return {}  # a class may be called "test"
  if others:
    raise UserError(f'{root}: has {found["train"].name!r} beside {others[0]!r}, which is no split; expected either '
                    'splits or classes in one folder. Move it into a split, or elsewhere')
  return found


def _say_unlabelled(folder, split):
  if loose := [entry.name for entry in os.scandir(folder) if folder_names.is_picture(entry.name)]:
    say(f'{printable(os.fspath(folder))}: {len(loose):,} pictures without class folders have no labels, so that they '
        f'are not scored as {split}. To classify them: python -m vit_jax.predict RUN '
        f'{printable(os.fspath(folder))}', sys.stderr)


def _open_split(folder, name, class_names):
  found = _subfolders(folder)
  loose = [entry.name for entry in os.scandir(folder) if folder_names.is_picture(entry.name)]
  if not found:
    raise UserError(f'{folder}: ' + (f'{len(loose)} pictures but no class folders; sort them into {folder}/CLASS/'
                                     if loose else f'empty; put pictures into {folder}/CLASS/'))
  names = {class_folder: folder_names.text(class_folder) for class_folder in found}
  if class_names is None and len(found) < 2:  # to score, one class will do
    raise UserError(f'{folder}: one class, {names[found[0]]!r}; a classifier needs two or more class folders')
  class_names = class_names or tuple(names.values())
  real = {os.path.realpath(folder / class_folder): class_folder for class_folder in found}
  listed, others = {}, []
  for class_folder in found:
    if names[class_folder] not in class_names:
      raise UserError(f'{folder / class_folder}: train has no such class{nearest(names[class_folder], class_names)}')
    elsewhere = {path for path, other in real.items() if other != class_folder}
    listed[class_folder], unread = _files(folder / class_folder, elsewhere)
    others += unread
  kept, twice = _once(listed)
  for class_folder in found:
    _check_class(folder / class_folder, kept[class_folder], listed[class_folder], others)
  _say_left_out(folder, loose, others, twice)
  if lonely := [f for f in found if len(kept[f]) == 1]:
    say(f'{printable(os.fspath(folder))}: {len(lonely):,} classes have one picture, such as '
        f'{printable(names[lonely[0]])}: what is learnt of them cannot be measured', sys.stderr)
  labels = [class_names.index(names[f]) for f in found for _ in kept[f]]
  return FolderSource(name, class_names, tuple(path for f in found for path in kept[f]),
                      np.asarray(labels, np.int32), folder)


def _once(listed):
  """({class: its paths}, links that lead to pictures of another class) of {class: its `_File`s}: each file once."""
  owner, twice = {}, []
  files = [(file, class_name) for class_name, files in listed.items() for file in files]
  for file, class_name in sorted(files, key=lambda item: item[0].linked):  # a file belongs to where it is
    if owner.setdefault(file.real, class_name) != class_name:
      twice.append(file.path)
  paths = {class_name: {} for class_name in listed}
  for file, class_name in files:
    if owner[file.real] == class_name:
      paths[class_name].setdefault(file.real, file.path)
  return {class_name: sorted(found.values()) for class_name, found in paths.items()}, twice


def _say_left_out(folder, loose, others, twice):
  """Says which pictures are not used."""
  said = []
  if loose:
    said.append(f'{len(loose):,} pictures are in no class folder, such as {loose[0]}')
  if others:
    said.append(f'{len(others):,} pictures are of kinds that are not read ({folder_names.kinds(others)}), such as '
                f'{others[0]}; convert them to JPEG or PNG')
  if twice:
    said.append(f'{len(twice):,} links lead to pictures of another class, such as {twice[0]}')
  for text in said:
    say(f'left out: {printable(os.fspath(folder))}: {printable(folder_names.text(text))}', sys.stderr)


def _check_class(folder, files, before, others):
  """Raises UserError for a class without any readable picture. Single bad pictures are handled when they are read."""
  if not files:
    if before:
      raise UserError(f'{folder}: all of its {len(before)} pictures are links to pictures of another class')
    unread = [path for path in others if path.startswith(os.path.join(folder, ''))]
    kinds = f', found {folder_names.kinds(unread)}' if unread else ''
    raise UserError(f'{folder}: no pictures; expected files {" ".join(folder_names.SUFFIXES)}{kinds}')
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
  return sorted(e.name for e in os.scandir(folder)
                if e.is_dir() and not folder_names.hidden(e.name) and not leads_back(e))


class _File(NamedTuple):
  """A picture's path, the file that it is, and whether a link leads there."""
  path: str
  real: str
  linked: bool


def _files(folder, elsewhere=frozenset()):
  """([`_File`] of pictures, paths of pictures of kinds that are not read) below a folder, sorted by path.

  A folder is read once, however many links lead to it. Not followed are links to folders above, in which other classes
  are, and to the folders `elsewhere`, which are those of other classes.
  """
  top = os.path.realpath(folder)
  above = lambda real: os.path.join(top, '').startswith(os.path.join(real, '')) and real != top
  found, others, seen, waiting = [], [], {*elsewhere, top}, [(os.fspath(folder), top, os.path.islink(folder))]
  while waiting:
    place, real_place, linked = waiting.pop()
    links = []
    for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
      if folder_names.hidden(entry.name):
        continue
      link = entry.is_symlink()
      real = os.path.realpath(entry.path) if link else os.path.join(real_place, entry.name)
      if entry.is_dir():
        if link:
          links.append((entry.path, real, True))
        elif real not in seen:
          seen.add(real)
          waiting.append((entry.path, real, linked))
      elif folder_names.is_picture(entry.name):
        found.append(_File(entry.path, real, linked or link))
      elif folder_names.is_other_picture(entry.name):
        others.append(entry.path)
    for path, real, _ in links:
      if real not in seen and not above(real):
        seen.add(real)
        waiting.insert(0, (path, real, True))  # after all that is here itself
  return sorted(found), sorted(others)
