"""Pictures with captions that are rendered once from packages (`picture_packages`), and then read as arrays.

`python -m vit_jax.data.prepare --name=emoji` writes a folder with pictures.npy, uint8 [N, size, size, 3], table.jsonl,
which has the captions, the artist and the licence of each picture, and set.json with counts and a digest.
"""

import collections
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from vit_jax import durable
from vit_jax.data import picture_packages, pictures
from vit_jax.data.array_sources import ArraySource
from vit_jax.errors import UserError, nearest
from vit_jax.printable import say

_PICTURES, _TABLE, _SET = 'pictures.npy', 'table.jsonl', 'set.json'
_SVG = re.compile(r'<(?:\w+:)?svg\b[^>]*>', re.S)
_SIDES = (re.compile(r'\bviewBox\s*=\s*["\']\s*(?:[\d.eE+-]+[\s,]+){2}(?P<width>[\d.]+)[\s,]+(?P<height>[\d.]+)'),
          re.compile(r'(?=.*?\swidth\s*=\s*["\'](?P<width>[\d.]+))(?=.*?\sheight\s*=\s*["\'](?P<height>[\d.]+))', re.S))


def folder_of(name: str, data_dir: str | None) -> pathlib.Path:
  """Where a set is: in `data_dir`, by default the cache of this user."""
  cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME', '~/.cache'), 'vit_jax')
  return pathlib.Path(data_dir or cache, name).expanduser()


def prepare(name: str, data_dir: str | None) -> dict[str, Any]:
  """Renders a set of `picture_packages.PACKAGES` and returns what set.json says of it.

  Pictures are put on white squares. Equal ones become one picture with the captions of all, and blank ones are left
  out. Fonts of the system are not used, so that the pixels are the same everywhere.

  Raises:
    UserError: a package is absent; the message has the command that fetches it.
  """
  package, folder = picture_packages.PACKAGES[name], folder_of(name, data_dir)
  try:
    import resvg_py  # noqa: F401
  except ImportError as error:
    raise UserError(f'--name={name}: rendering needs the package resvg-py: `uv run --extra icons python -m '
                    f'vit_jax.data.prepare --name={name}`') from error
  rows, images, left_out = _rendered(package.read(folder.parent), package.size)
  lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in rows]
  hashed = hashlib.blake2b('\n'.join(lines).encode(), digest_size=8)
  hashed.update(np.ascontiguousarray(images))
  about = {'name': name, 'digest': hashed.hexdigest(), 'pictures': len(rows), 'size': package.size,
           'concepts': package.concepts, 'artists': len({row['artist'] for row in rows}),
           'licences': dict(collections.Counter(row['licence'] for row in rows)), 'left_out': left_out}
  part = folder.with_name(f'{name}.{os.getpid()}.part')
  part.mkdir(parents=True)
  try:
    np.save(part / _PICTURES, images)
    durable.write(part / _TABLE, '\n'.join(lines) + '\n')
    durable.write(part / _SET, json.dumps(about, indent=2) + '\n')
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
  finally:
    shutil.rmtree(part, ignore_errors=True)
  return about


def _rendered(items: Iterable[picture_packages.Item], size):
  """(rows of the table, images [N, size, size, 3], {why: how many are left out})."""
  rows, images, left_out = {}, [], collections.Counter()
  for item in items:
    try:
      image = render(item.picture, size)
    except (pictures.BadPicture, ValueError):
      left_out['cannot be rendered'] += 1
      continue
    if not any(item.captions.values()) or (image == image[0, 0]).all():
      left_out['blank, or without a caption'] += 1
      continue
    digest = hashlib.blake2b(image, digest_size=16).digest()
    if digest in rows:
      left_out['equal to others'] += 1
      for language, texts in item.captions.items():
        known = rows[digest]['captions'].setdefault(language, [])
        known += [text for text in texts if text not in known]
      continue
    rows[digest] = {'captions': {language: list(texts) for language, texts in item.captions.items()},
                    'artist': item.artist, 'set': item.set, 'licence': item.licence}
    images.append(image)
  return list(rows.values()), np.stack(images or [np.zeros((size, size, 3), np.uint8)])[:len(images)], dict(left_out)


def render(picture: str | bytes, size: int) -> np.ndarray:
  """An SVG, or an encoded picture, in the middle of a white square: uint8 [size, size, 3].

  Raises:
    ValueError, pictures.BadPicture: it cannot be read.
  """
  if isinstance(picture, str):
    import resvg_py
    longer = 'height' if _is_tall(picture) else 'width'
    picture = bytes(resvg_py.svg_to_bytes(svg_string=picture, background='#ffffff', skip_system_fonts=True, dpi=96,
                                          **{longer: size}))  # without dpi, a side in cm or pt is 0
  height, width = pictures.size(picture)
  out = tuple(max(1, round(side * size / max(height, width))) for side in (height, width))
  image = np.full((size, size, 3), 255, np.uint8)
  top, left = ((size - side) // 2 for side in out)
  image[top:top + out[0], left:left + out[1]] = pictures.decode(picture, 3, None, out, 'lanczos')
  return image


def _is_tall(svg):
  """Whether an SVG is higher than wide; otherwise it might be rendered at a huge height."""
  tag = _SVG.search(svg)
  found = tag and next(filter(None, (pattern.search(tag[0]) for pattern in _SIDES)), None)
  return bool(found) and float(found['height']) > float(found['width'])


def open_prepared(source: str, data_dir: str | None) -> dict[str, ArraySource]:
  """Opens NAME[:LANGUAGE,..][@ARTIST]: with the captions in these languages (default: en), in this order.

  With an artist, or a set of theirs, all of their pictures are test, and none of them is trained on.

  Raises:
    UserError: it is not prepared, or has no such language or artist.
  """
  words, at, artist = source.partition('@')
  name, _, languages = words.partition(':')
  folder = folder_of(name, data_dir)
  if not (folder / _SET).is_file():
    place = f' --data_dir={data_dir}' if data_dir else ''
    raise UserError(f'data.source={source}: not prepared in {folder}. Run `python -m vit_jax.data.prepare '
                    f'--name={name}{place}`')
  about = json.loads((folder / _SET).read_text())
  rows = [json.loads(line) for line in (folder / _TABLE).read_text().split('\n') if line]
  images = np.load(folder / _PICTURES, mmap_mode='r')
  if len(rows) != len(images) or len(rows) != about['pictures']:
    raise UserError(f'data.source={source}: {folder} is damaged: {len(images):,} pictures, {len(rows):,} lines, '
                    f'{about["pictures"]:,} in {_SET}; remove it and prepare it again')
  captions = _in(languages.split(',') if languages else ['en'], rows, source)
  kept = np.array([i for i, texts in enumerate(captions) if texts])
  if len(kept) < len(rows):
    say(f'{source}: {len(rows) - len(kept):,} of {len(rows):,} pictures have no caption in {languages}, and are left '
        'out', sys.stderr)
  names = tuple(sorted({captions[i][0] for i in kept})) if about['concepts'] else ()
  number = {text: label for label, text in enumerate(names)}
  labels = np.array([number.get(captions[i][0], 0) for i in kept], np.int32)
  test = _by(artist, [rows[i] for i in kept], source) if at else np.zeros(len(kept), bool)

  def part(which):
    chosen = kept[which]
    return ArraySource(name, names, images if len(chosen) == len(images) else images[chosen], labels[which],
                       [captions[i] for i in chosen])

  return {'train': part(~test), **({'test': part(test)} if at else {})}


def _in(languages, rows, source):
  """The captions of each row in these languages."""
  known = {language for row in rows for language in row['captions']}
  for language in languages:
    if language not in known:
      raise UserError(f'data.source={source}: no captions in {language!r}{nearest(language, known)}')
  return [tuple(dict.fromkeys(text for language in languages for text in row['captions'].get(language, ())))
          for row in rows]


def _by(artist, rows, source):
  """Which rows are by this artist or of this set."""
  test = np.array([artist in (row['artist'], row['set']) for row in rows])
  if not test.any() or test.all():
    known = {row[key] for row in rows for key in ('artist', 'set')}
    raise UserError(f'data.source={source}: {"all" if test.all() else "none"} of the pictures are by {artist!r}'
                    f'{nearest(artist, known)}')
  return test
