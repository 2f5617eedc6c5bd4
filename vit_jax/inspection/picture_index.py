"""An index of the pictures of a folder: their embeddings in one file, from which texts are answered at once."""

import dataclasses
import io
import os
import pathlib
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
from etils import epath

from vit_jax import durable
from vit_jax.data import folder_names, pictures
from vit_jax.errors import UserError
from vit_jax.inspection.pair_model import PairModel

_BATCH = 256  # pictures decoded and computed at a time


@dataclasses.dataclass(frozen=True)
class PictureIndex:
  """The pictures of a folder.

  Attributes:
    paths: of N pictures, relative to the folder.
    stamps: int64 [N, 2]: the size and the time of change of each file.
    embeddings: float32 [N, E], of unit length; not a number for a file that could not be read.
    model: the `PairModel.digest` of the model that made them.
  """
  paths: tuple[str, ...]
  stamps: np.ndarray
  embeddings: np.ndarray
  model: str

  def find(self, texts_QE: np.ndarray, most: int) -> list[list[tuple[str, float]]]:
    """For each text the (path, cosine) of the pictures that fit best, best first."""
    products_QN = np.nan_to_num(texts_QE @ self.embeddings.T, nan=-np.inf)
    best = np.argsort(-products_QN, axis=1, kind='stable')[:, :most]
    return [[(self.paths[i], float(row[i])) for i in order if np.isfinite(row[i])]
            for row, order in zip(products_QN, best)]


def open_index(pairs: PairModel, folder: str | os.PathLike, file: str | os.PathLike,
               note: Callable[[str], None] = print) -> PictureIndex:
  """The index of a folder as it is now: read from `file`, and what is new or has changed computed and written there.

  An index of another model is made anew.

  Raises:
    UserError: there is no such folder, no picture in it or none that can be read, or the index cannot be written.
  """
  if os.path.isdir(file):
    raise UserError(f'--index={os.fspath(file)}: expected a file, got a folder')
  root, before = pathlib.Path(folder), _read(file, pairs.digest)
  found = folder_names.find([folder])
  paths = tuple(os.fspath(path.relative_to(root)) for path in found)
  stamps = np.array([(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in found)], np.int64)
  known = {} if before is None else {(path, *stamp): i for i, (path, stamp) in enumerate(
      zip(before.paths, before.stamps.tolist()))}
  old = [known.get((path, *stamp)) for path, stamp in zip(paths, stamps.tolist())]
  new = [i for i, place in enumerate(old) if place is None]
  if before is not None and not new and len(old) == len(before.paths):
    return before
  width = pairs.embedder.texts(['']).shape[1]
  embeddings = np.full((len(paths), width), np.nan, np.float32)
  kept = [i for i, place in enumerate(old) if place is not None]
  if kept:
    embeddings[kept] = before.embeddings[[old[i] for i in kept]]
  _fill(embeddings, pairs, found, new, note)
  if np.isnan(embeddings).all():
    raise UserError(f'{root}: none of the {len(paths):,} pictures could be read')
  index = PictureIndex(paths, stamps, embeddings, pairs.digest)
  _write(index, file)
  return index


def _fill(embeddings, pairs, paths, which: Sequence[int], note):
  """Computes the embeddings of these pictures; one that cannot be read is named."""
  for start in range(0, len(which), _BATCH):
    prepared = []
    for i in which[start:start + _BATCH]:
      try:
        prepared.append((i, pairs.preprocessing.prepare(paths[i])))
      except pictures.BadPicture as error:
        note(f'{paths[i]}: cannot be read: {error}')
    if prepared:
      places, images = zip(*prepared)
      embeddings[list(places)] = pairs.embedder.images(np.stack(images))
    note(f'indexed {min(start + _BATCH, len(which)):,} of {len(which):,} pictures')


def _read(file, digest):
  """The index in a file; None if there is none, or it is of another model or not whole."""
  path = epath.Path(file)
  if not path.exists():
    return None
  try:
    with np.load(io.BytesIO(path.read_bytes())) as arrays:  # without pickles
      paths, model = tuple(arrays['paths'].tolist()), str(arrays['model'])
      index = PictureIndex(paths, arrays['stamps'], arrays['embeddings'], model)
  except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
    return None
  whole = len(index.paths) == len(index.stamps) == len(index.embeddings)
  return index if whole and index.model == digest else None


def _write(index, file):
  content = io.BytesIO()
  np.savez(content, paths=np.array(index.paths), stamps=index.stamps, embeddings=index.embeddings, model=index.model)
  try:
    durable.write(file, content.getvalue())
  except OSError as error:
    raise UserError(f'{os.fspath(file)}: the index cannot be written ({error.strerror or error}); give another place '
                    'with --index=FILE') from error
