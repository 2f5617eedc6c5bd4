"""Which files of a folder are pictures, which folders are splits, and what is not used: how people keep pictures."""

import collections
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Sequence

from vit_jax.errors import UserError
from vit_jax.printable import printable, say

# Kinds that `pictures` decodes.
SUFFIXES = ('.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.webp', '.bmp', '.dib', '.gif', '.tif', '.tiff')
# Pictures of other kinds, which are counted and named, so that nobody misses them.
OTHER = ('.jp2', '.j2k', '.jpx', '.jxl', '.avif', '.heic', '.heif', '.psd', '.svg', '.ico', '.tga', '.exr', '.hdr',
         '.raw', '.cr2', '.cr3', '.nef', '.arw', '.dng', '.orf', '.rw2', '.eps', '.pcx', '.dcm', '.npy', '.ppm',
         '.pgm', '.pbm', '.pnm')
_SPLITS = {'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'dev': 'val',
           'test': 'test', 'testing': 'test'}
_SPLIT = re.compile(rf'({"|".join(sorted(_SPLITS, key=len, reverse=True))})([ _-]?(set|split|data|images))?', re.I)


def split_of(name: str) -> str | None:
  """'train', 'val' or 'test' for a folder's name that means it, such as 'Valid' or 'test_set'; else None."""
  match = _SPLIT.fullmatch(name)
  return _SPLITS[match[1].lower()] if match else None


def is_picture(name: str) -> bool:
  """Whether a file's name is that of a picture that can be read."""
  return name.lower().endswith(SUFFIXES) and not hidden(name)


def is_other_picture(name: str) -> bool:
  """Whether a file's name is that of a picture of a kind that is not read."""
  return name.lower().endswith(OTHER) and not hidden(name)


def hidden(name: str) -> bool:
  """Whether a file or folder is none of the user's: hidden, or left by a program."""
  return name.startswith('.') or name in ('__MACOSX', '@eaDir', 'Thumbs.db', '$RECYCLE.BIN')


def text(name: str) -> str:
  """A name as text: bytes that are not UTF-8 are spelled out, such as \\\\xe9."""
  return os.fsencode(name).decode('utf-8', 'backslashreplace')


def kinds(paths: Iterable[str]) -> str:
  """'3 .heic, 1 .avif': how many files there are of each suffix."""
  counts = collections.Counter(os.path.splitext(path)[1].lower() for path in paths)
  return ', '.join(f'{n:,} {suffix}' for suffix, n in counts.most_common())


def say_left_out(folder: os.PathLike, reasons: Iterable[tuple[str, Sequence[str]]], unread: Sequence[str]) -> None:
  """Says on stderr what of a folder is not used.

  Args:
    folder: the folder.
    reasons: (words, names), such as ('pictures are in no class folder', paths); one without names is not said.
    unread: the paths of pictures of kinds that are not read.
  """
  said = [f'{len(names):,} {words}, such as {names[0]}' for words, names in reasons if names]
  if unread:
    said.append(f'{len(unread):,} pictures are of kinds that are not read ({kinds(unread)}), such as {unread[0]}; '
                'convert them to JPEG or PNG')
  for words in said:
    say(f'left out: {printable(os.fspath(folder))}: {printable(text(words))}', sys.stderr)


def find(places: Iterable[str | os.PathLike]) -> list[pathlib.Path]:
  """The given files, and the pictures in the given folders except hidden ones.

  Raises:
    UserError: a place does not exist, or is a folder without pictures.
  """
  paths = []
  for place in map(pathlib.Path, places):
    if not place.exists():
      raise UserError(f'{place}: no such file or folder')
    below = sorted(path for path in place.rglob('*') if is_picture(path.name) and path.is_file()
                   and not any(part.startswith('.') for part in path.relative_to(place).parts))
    if place.is_dir() and not below:
      raise UserError(f'{place}: expected a folder with pictures ({", ".join(SUFFIXES)}), found none')
    paths += below if place.is_dir() else [place]
  return paths
