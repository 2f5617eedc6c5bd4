"""The index of a split: what a start needs to know of all its pictures, in one file beside them.

`python -m vit_jax.data.prepare --index` writes it once, locally or in a bucket. Without it, every start reads each
record (TFDS) or lists each folder (folder:DIR) to find the labels: more than a terabyte for ImageNet-21k. The file is
Arrow's IPC format, compressed. Of 14 million pictures a start reads 50 to 100 MB (experiments/data_index).
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
from typing import Any

import numpy as np
from etils import epath

from vit_jax import durable
from vit_jax.errors import UserError

_VERSION = 1
_HEADER = b'vit_jax'
_ROWS = 1 << 20  # per batch of the file
_LABEL, _NAME, _SIZE, _CAPTIONS, _SEVERAL = 'label', 'name', 'size', 'captions', 'several_labels'


@dataclasses.dataclass(frozen=True)
class Index:
  """An index in a file, whose columns are read when they are asked for.

  Attributes:
    path: of the file.
    header: {'state', 'class_names', 'image_size', 'fingerprints', ...} as given to `write`.
  """
  path: epath.Path
  header: dict[str, Any]

  @functools.cached_property
  def labels(self) -> np.ndarray:
    """int32 [N], or uint8 [N, C] of data with several labels a picture."""
    column = self._column(_LABEL)
    if not self.header.get(_SEVERAL):
      return column.to_numpy().astype(np.int32, copy=False)
    labels = np.zeros((len(column), len(self.header['class_names'])), np.uint8)
    column = column.combine_chunks()
    labels[np.repeat(np.arange(len(column)), column.value_lengths().to_numpy()), column.flatten().to_numpy()] = 1
    return labels

  @functools.cached_property
  def _names(self):
    return self._column(_NAME)

  def name(self, i: int) -> str:
    """The path of picture i in the folder of its class; only of folders."""
    return os.fsdecode(self._names[int(i)].as_py())

  @functools.cached_property
  def sizes(self) -> np.ndarray:
    """Bytes of the files, int64 [N]; only of folders."""
    return self._column(_SIZE).to_numpy()

  @functools.cached_property
  def captions(self) -> list[tuple[str, ...]] | None:
    """The captions of each picture; None if the source has none."""
    return list(map(tuple, self._column(_CAPTIONS).to_pylist())) if self.header.get(_CAPTIONS) else None

  def fingerprint(self, examples: np.ndarray) -> str | None:
    """The fingerprint of some of the pictures, if it was made with the index."""
    return self.header['fingerprints'].get(positions(examples))

  def _column(self, name):
    import pyarrow as pa
    with _opened(self.path) as file:
      place = pa.ipc.open_file(file).schema.get_field_index(name)
      file.seek(0)
      only = pa.ipc.IpcReadOptions(included_fields=[place])
      return pa.ipc.open_file(file, options=only).read_all().column(0)

  def __getstate__(self):  # workers read the columns that they need
    return {'path': self.path, 'header': self.header}


def path_of(folder: os.PathLike | str, split: str) -> epath.Path:
  """Where the index of a split is, beside its data."""
  return epath.Path(folder) / f'vit_jax-index-{split}.arrow'


def read(folder: os.PathLike | str, split: str, state: str) -> Index | None:
  """The index of a split; None if there is none.

  Args:
    folder: of the data.
    split: its name.
    state: of the data as they are now, as given to `write`.

  Raises:
    UserError: it is damaged, or of other data than those that are there.
  """
  path = path_of(folder, split)
  if not durable.patiently(path.exists):
    return None
  import pyarrow as pa
  try:
    with _opened(path) as file:
      header = json.loads(pa.ipc.open_file(file).schema.metadata[_HEADER])
  except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
    raise UserError(f'{path}: no index ({type(error).__name__}); remove it, and make it again: {COMMAND}') from error
  if header.get('version') != _VERSION or header['state'] != state:
    raise UserError(f'{path} is of other data than those beside it. Make it again: {COMMAND}')
  return Index(path, header)


COMMAND = 'python -m vit_jax.data.prepare --index --source=SOURCE [--data_dir=DIR]'


def write(folder: os.PathLike | str, split: str, state: str, labels: np.ndarray, *, names=None, sizes=None,
          captions=None, **header: Any) -> epath.Path:
  """Writes the index of a split; returns its path.

  Args:
    folder: of the data.
    split: its name.
    state: a text that changes when the data do.
    labels: int [N], or uint8 [N, C] of 0 and 1.
    names: a path per picture, in the folder of its class, for folders.
    sizes: bytes per file, int [N], for folders.
    captions: texts per picture, where there are some.
    header: what else is kept: class_names, image_size, fingerprints ({text of `positions`: fingerprint}); of folders
      also faults, as of `FolderSource.faults`.
  """
  import pyarrow as pa
  if labels.ndim == 2:
    columns = {_LABEL: pa.array(list(map(np.flatnonzero, labels)), pa.list_(pa.int32()))}
    header |= {_SEVERAL: True}
  else:
    columns = {_LABEL: pa.array(np.asarray(labels, np.int32))}
  if names is not None:
    columns |= {_NAME: pa.array(map(os.fsencode, names), pa.binary()), _SIZE: pa.array(np.asarray(sizes, np.int64))}
  if captions is not None:
    columns[_CAPTIONS] = pa.array(list(map(list, captions)), pa.list_(pa.string()))
    header |= {_CAPTIONS: True}
  table = pa.table(columns).replace_schema_metadata(
      {_HEADER: json.dumps({'version': _VERSION, 'state': state, **header}).encode()})
  sink = pa.BufferOutputStream()
  with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression='zstd')) as writer:
    writer.write_table(table, max_chunksize=_ROWS)
  path = path_of(folder, split)
  durable.write(path, sink.getvalue().to_pybytes())
  return path


def positions(examples: np.ndarray) -> str:
  """A digest of positions in a split."""
  return hashlib.blake2b(np.ascontiguousarray(examples, np.int64), digest_size=16).hexdigest()


@contextlib.contextmanager
def _opened(path):
  """The file for Arrow: mapped where it is on a disk or a mount, fetched whole from a bucket."""
  import pyarrow as pa
  if '://' not in os.fspath(path):
    with pa.memory_map(os.fspath(path)) as file:
      yield file
    return
  yield pa.BufferReader(_fetched(path))


@functools.lru_cache(maxsize=2)
def _fetched(path):
  return durable.patiently(path.read_bytes)
