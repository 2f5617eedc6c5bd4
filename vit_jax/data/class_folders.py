"""The splits and classes of a folder of pictures: each picture once, with one label. What is left out is said.

The folder may be on a disk or in a bucket; `listing` knows the difference.
"""

import os
import pathlib
import sys
from collections.abc import Sequence

from etils import epath

from vit_jax import commands
from vit_jax.data import folder_names, listing, pictures
from vit_jax.errors import UserError, nearest
from vit_jax.printable import printable, say

Folder = pathlib.Path | epath.Path


def splits(root: Folder) -> dict[str, Folder]:
  """{'train', 'val', 'test': folder} of a folder of splits, train first; {} for a folder of classes.

  Raises:
    UserError: two folders mean the same split, there are pictures beside the splits, or splits are inside of classes.
  """
  subfolders, found = listing.subfolders(root), {}
  for name in subfolders:
    if split := folder_names.split_of(name):
      if split in found:
        raise UserError(f'{root}: {found[split].name!r} and {name!r} both mean {split}; expected one of them')
      found[split] = root / name
  if 'train' not in found:
    _check_no_splits_inside(root, subfolders)
    return found if len(found) == len(subfolders) else {}  # a class may be called "test"
  for name in subfolders:
    if folder_names.split_of(name) is None and listing.files(root / name)[0]:
      raise UserError(f'{root}: has {found["train"].name!r} beside {name!r}, which is no split; expected either '
                      'splits or classes in one folder. Move it into a split, or elsewhere')
  return {split: found[split] for split in sorted(found, key=lambda split: split != 'train')}


def _check_no_splits_inside(root, classes):
  """Raises UserError for CLASS/train and CLASS/test, whose pictures would all be trained on."""
  inside = listing.subfolders(root / classes[0]) if len(classes) > 1 else ()
  meant = {folder_names.split_of(name) for name in inside}
  if 'train' in meant and meant & {'val', 'test'}:
    raise UserError(f'{root / classes[0]}: has {" and ".join(map(repr, inside))} in it; expected the splits outside, '
                    f'as in {root}/{inside[-1]}/{classes[0]}')


def say_unlabelled(folder: Folder, split: str) -> None:
  """Says what can be done with the pictures of a split that has no class folders."""
  if found := listing.loose(folder):
    place = printable(os.fspath(folder))
    say(f'{place}: {len(found):,} pictures without class folders have no labels, so that they are not scored as '
        f'{split}. To classify them: {commands.written("predict", f"RUN {place}")}', sys.stderr)


def class_names(folder: Folder, known: Sequence[str] | None) -> tuple[str, ...]:
  """The classes of a split: those that are known, or else the names of its folders.

  Raises:
    UserError: it has no class folders, or one where nothing is known of others.
  """
  found = [folder_names.text(name) for name in listing.subfolders(folder)]
  if not found:
    loose = listing.loose(folder)
    raise UserError(f'{folder}: ' + (f'{len(loose)} pictures but no class folders; sort them into {folder}/CLASS/'
                                     if loose else f'empty; put pictures into {folder}/CLASS/'))
  if known is None and len(found) < 2:  # to score, one class will do
    inside = listing.subfolders(folder / listing.subfolders(folder)[0])
    hint = f'. It has {inside[0]!r} and others in it: is it folder:{folder}/{found[0]}?' if len(inside) > 1 else ''
    raise UserError(f'{folder}: one class, {found[0]!r}; a classifier needs two or more class folders{hint}')
  return tuple(known or found)


def files(folder: Folder, known: Sequence[str]) -> dict[str, list[listing.File]]:
  """{class folder: its pictures} of a split, each file once.

  Args:
    folder: of the split.
    known: the classes that there are.

  Raises:
    UserError: a class is not known, or has no picture that can be read.
  """
  found = listing.subfolders(folder)
  names = {class_folder: folder_names.text(class_folder) for class_folder in found}
  real, of_known = frozenset(listing.real(folder / class_folder) for class_folder in found), frozenset(known)
  listed, others = {}, []
  for class_folder in found:
    if names[class_folder] not in of_known:
      raise UserError(f'{folder / class_folder}: train has no such class{nearest(names[class_folder], known)}')
    listed[class_folder], unread = listing.files(folder / class_folder, elsewhere=real)
    others += unread
  kept, twice = _once(listed)
  for class_folder in found:
    _check_class(folder / class_folder, kept[class_folder], listed[class_folder], others)
  folder_names.say_left_out(folder, [('pictures are in no class folder', listing.loose(folder)),
                                     ('links lead to pictures of another class', twice)], others)
  if lonely := [f for f in found if len(kept[f]) == 1]:
    say(f'{printable(os.fspath(folder))}: {len(lonely):,} classes have one picture, such as '
        f'{printable(names[lonely[0]])}: what is learnt of them cannot be measured', sys.stderr)
  return kept


def _once(listed):
  """({class: its files}, links that lead to pictures of another class) of {class: all files}: each file once."""
  owner, twice = {}, []
  every = [(file, class_folder) for class_folder, files in listed.items() for file in files]
  for file, class_folder in sorted(every, key=lambda item: item[0].linked):  # a file belongs to where it is
    if owner.setdefault(file.real, class_folder) != class_folder:
      twice.append(file.path)
  kept = {class_folder: {} for class_folder in listed}
  for file, class_folder in every:
    if owner[file.real] == class_folder:
      kept[class_folder].setdefault(file.real, file)
  return {class_folder: sorted(found.values()) for class_folder, found in kept.items()}, twice


def _check_class(folder, files, before, others):
  """Raises UserError for a class without any readable picture. Single bad pictures are handled when they are read."""
  if not files:
    if before:
      raise UserError(f'{folder}: all of its {len(before)} pictures are links to pictures of another class')
    unread = [path for path in others if path.startswith(os.path.join(folder, ''))]
    kinds = f', found {folder_names.kinds(unread)}' if unread else ''
    raise UserError(f'{folder}: no pictures; expected files {" ".join(folder_names.SUFFIXES)}{kinds}')
  for file in files:
    try:
      pictures.size(listing.read(file.path))
      return
    except (pictures.BadPicture, OSError):
      continue
  raise UserError(f'{folder}: none of its {len(files)} pictures can be read')
