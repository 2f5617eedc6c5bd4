"""Folders of pictures with captions, on a disk or in a bucket, with an index or without.

Each picture is used once, with all of its captions. What is left out is said: pictures without a caption, captions
without a picture.
"""

import collections
import os

import numpy as np
from etils import epath

from vit_jax import buckets
from vit_jax.data import caption_files, class_folders, folder_names, image_folder, listing, tables
from vit_jax.data import index as index_lib
from vit_jax.data.image_folder import FolderSource
from vit_jax.errors import UserError


def open_pairs(root: class_folders.Folder, indexed: bool = True) -> dict[str, FolderSource]:
  """Opens ROOT with pictures, also in subfolders, or with folders for train, val and test (`folder_names.split_of`).

  Captions are those of a table (`caption_files.TABLES`) in the folder of a split, or in ROOT, where it names pictures
  by their path from there; without a table, of a .txt beside each picture.

  Args:
    root: the folder.
    indexed: whether an index in it, if there is one, replaces reading of all captions and listing of all pictures.

  Raises:
    UserError: there is no such folder, no picture with a caption in a split, or a file of captions is malformed.
  """
  image_folder.check_is_there(root, 'pairs')
  found = class_folders.splits(root)
  whole = caption_files.table_in(root) if found else None
  return {split: _open_split(root, folder, split, whole, indexed)
          for split, folder in (found or {'train': root}).items()}


def _open_split(root, folder, split, whole, indexed):
  table = caption_files.table_in(folder) or whole
  if index := index_lib.read(root, split, _state(folder, table)) if indexed else None:
    return image_folder.indexed_source(folder, root.name, (), index)
  found, others = listing.files(folder)
  files = sorted({file.real: file for file in sorted(found, key=lambda file: not file.linked)}.values())
  captions, unused = _of_table(table, folder, files) if table else (caption_files.beside(f.path for f in files), [])
  if not any(captions):
    raise UserError(f'{folder}: {len(files):,} pictures, and none has a caption; ' + (
        f'{table} names {_some(unused)}' if table else 'expected captions.jsonl or captions.csv there, or a file '
        f'NAME{caption_files.BESIDE} beside each picture'))
  without = [file.path for file, texts in zip(files, captions) if not texts]
  folder_names.say_left_out(folder, [('pictures have no caption, or an empty one', without),
                                     ('captions are of pictures that are not there', unused)], others)
  kept = [(file, texts) for file, texts in zip(files, captions) if texts]
  return FolderSource(root.name, (), tuple(file.path for file, _ in kept), np.zeros(len(kept), np.int32), folder,
                      [file.size for file, _ in kept] if buckets.is_bucket(folder) else None,
                      captions=[texts for _, texts in kept], state=_state(folder, table))


def _of_table(table, folder, files):
  """(the captions of each file, names in the table that are none of these).

  A name without a folder may be that of one picture in a subfolder.
  """
  rows, start = caption_files.read_table(table), len(os.fspath(table.parent)) + 1
  names = [tables.key(file.path[start:]) for file in files]
  if folder != table.parent:  # what is in other splits is not missing here
    inside = f'{tables.key(os.fspath(folder)[start:])}/'
    rows, last = {name: texts for name, texts in rows.items() if name.startswith(inside)}, {}
  else:
    last = collections.Counter(name.rpartition('/')[2] for name in names)
  of = [name if name in rows or last.get(short := name.rpartition('/')[2]) != 1 else short for name in names]
  return [rows.get(name, ()) for name in of], sorted(rows.keys() - set(of))


def _some(names):
  return f'{len(names):,}{f", such as {names[0]}" if names else ""}'


def _state(folder, table):
  """What an index says of the folder and its table; the sizes of some pictures are compared as well."""
  of_table = f'{table.name} {epath.Path(table).stat().length}' if table else ''
  return image_folder.state(folder, of_table)
