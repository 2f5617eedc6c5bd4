"""IDX files, the format of MNIST (LeCun et al. 1998) and of its successors."""

import gzip
import os
import pathlib
import zlib

import numpy as np

from vit_jax.data.array_sources import ArraySource
from vit_jax.errors import UserError

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
  raw = path.read_bytes()
  if path.suffix == '.gz':
    try:
      raw = gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
      raise UserError(f'{path}: truncated or damaged gzip file ({error}); get it again') from error
  if raw[:4] != bytes([0, 0, 8, dims]):
    raise UserError(f'{path}: not an IDX file of {dims} dimension(s) of bytes: expected it to start with '
                    f'00 00 08 {dims:02x}, got {raw[:4].hex(" ")}')
  header = 4 + 4 * dims
  shape = np.frombuffer(raw[4:header].ljust(4 * dims, b'\0'), '>u4').astype(np.int64)
  if len(raw) != header + shape.prod():
    raise UserError(f'{path}: expected {header + shape.prod():,} bytes for {" x ".join(map(str, shape))}, got '
                    f'{len(raw):,}; the file is truncated or damaged')
  return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)
