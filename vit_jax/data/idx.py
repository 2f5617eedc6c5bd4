"""IDX files, the format of MNIST (LeCun et al. 1998) and of its successors."""

import gzip
import math
import os
import pathlib
import zlib

import numpy as np

from vit_jax.data.array_sources import ArraySource
from vit_jax.errors import UserError

_MAX_EXPANSION = 100  # unpacked size / size of a .gz file; of Fashion-MNIST it is 1.8, of MNIST 4.8
_PART = 1 << 24  # bytes that are unpacked at a time
_FILES = {'train': 'train', 'test': 't10k'}


def is_idx_folder(folder: str | os.PathLike) -> bool:
  """Whether the folder holds the training pictures of an IDX data set."""
  return _find(pathlib.Path(folder), 'train-images-idx3-ubyte') is not None


def open_idx(folder: pathlib.Path, name: str, class_names: tuple[str, ...] | None = None) -> dict[str, ArraySource]:
  """Opens splits 'train' and 'test' of a folder with {train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz.

  Args:
    folder: the folder.
    name: the name of the data set.
    class_names: None for '0', '1', ... up to the largest training label.

  Raises:
    UserError: a file is missing, truncated or not IDX, or the numbers of pictures and labels differ.
  """
  if not folder.is_dir():
    raise UserError(f'idx:{folder}: no such folder')
  arrays = {}
  for split, prefix in _FILES.items():
    images = _read(folder, f'{prefix}-images-idx3-ubyte', dims=3)
    labels = _read(folder, f'{prefix}-labels-idx1-ubyte', dims=1)
    if len(images) != len(labels):
      raise UserError(f'{folder}: {len(images):,} pictures but {len(labels):,} labels in {prefix}-*; they must match')
    if len(images) and not images.size:
      raise UserError(f'{folder}: pictures of {images.shape[1]} x {images.shape[2]} in {prefix}-*; is it damaged?')
    arrays[split] = images[..., None], labels.astype(np.int32)
  if not len(arrays['train'][1]):
    raise UserError(f'{folder}: train-images-idx3-ubyte holds no pictures')
  class_names = class_names or tuple(str(c) for c in range(arrays['train'][1].max() + 1))
  for split, (_, labels) in arrays.items():
    if len(labels) and labels.max() >= len(class_names):
      raise UserError(f'{folder}: a label {labels.max()} in {split}, but train has {len(class_names)} classes')
  return {split: ArraySource(name, class_names, *pair) for split, pair in arrays.items() if len(pair[1])}


def _find(folder, name):
  for candidate in (name, f'{name}.gz', name.replace('-idx', '.idx'), name.replace('-idx', '.idx') + '.gz'):
    if (folder / candidate).is_file():
      return folder / candidate
  return None


def _read(folder, name, dims):
  """The uint8 array of one file, which holds the magic number 0 0 8 dims, big-endian sizes, and the values."""
  path = _find(folder, name)
  if path is None:
    raise UserError(f'{folder}: no file {name} or {name}.gz')
  try:
    with gzip.open(path) if path.suffix == '.gz' else path.open('rb') as file:
      return _values(file, path, dims)
  except (EOFError, gzip.BadGzipFile, zlib.error) as error:
    raise UserError(f'{path}: truncated or damaged gzip file ({error}); get it again') from error


def _values(file, path, dims):
  """The array of an open file, of which no more is unpacked than its header promises."""
  header = 4 + 4 * dims
  start = file.read(header)
  if start[:4] != bytes([0, 0, 8, dims]):
    raise UserError(f'{path}: not an IDX file of {dims} dimension(s) of bytes: expected it to start with '
                    f'00 00 08 {dims:02x}, got {start[:4].hex(" ")}')
  shape = tuple(int.from_bytes(start[at:at + 4]) for at in range(4, header, 4))
  promised, size = math.prod(shape), path.stat().st_size
  if path.suffix == '.gz' and promised > _MAX_EXPANSION * size + (1 << 20):
    raise UserError(f'{path}: {size:,} bytes, but its header promises {promised:,} ({" x ".join(map(str, shape))}); '
                    'the file is damaged; get it again')
  content = bytearray()
  while len(content) <= promised and (part := file.read(min(_PART, promised + 1 - len(content)))):
    content += part
  if len(content) != promised or len(start) != header:
    got = f'more than {promised:,}' if len(content) > promised else f'{len(content):,}'
    raise UserError(f'{path}: expected {promised:,} bytes after the header, for {" x ".join(map(str, shape))}, got '
                    f'{got}; the file is truncated or damaged; get it again')
  return np.frombuffer(content, np.uint8).reshape(shape)
