"""Files of named tensors, which are not trusted.

Names, shapes and types are read first. Values are read on request, one tensor at a time. Nothing is ever unpickled.
"""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vit_jax import durable
from vit_jax.errors import UserError

INDEX = 'model.safetensors.index.json'
_MAX_EXPANSION = 20  # unpacked size / size on disk; trained weights are hardly compressible
_FLOATS = ('F64', 'F32', 'F16', 'BF16')
_NPY_HEADER = 1 << 16  # the maximum size of a .npy header in bytes
# Files that are often mistaken for weights, by their first bytes.
_MISTAKEN = (
    (b'version https://git-lfs', 'a Git LFS pointer (run `git lfs pull` to download the file)'),
    (b'\x80', 'a Python pickle, which can run arbitrary code when read'),
    (b'\x89HDF', 'an HDF5 file'),
    (b'<', 'a web page (the download failed)'),
    (b'{', 'a JSON file'),
)
_EXPECTED = 'expected a .safetensors or .npz file of weights'


@dataclasses.dataclass(frozen=True)
class Tensors:
  """The tensors of one file, or of several files with an index.

  Attributes:
    source: the path, for messages.
    shapes: {name: shape} of the floating-point tensors.
    others: the names of all other tensors: counters and index tables.
    load: returns the values of a tensor by name.
  """
  source: str
  shapes: dict[str, tuple[int, ...]]
  others: frozenset[str]
  load: Callable[[str], np.ndarray]

  def __getitem__(self, name: str) -> np.ndarray:
    """The values of a tensor, float32. Raises UserError if some are not finite, or if the file is damaged."""
    try:
      value = np.asarray(self.load(name), np.float32)
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as e:
      raise UserError(f'{self.source}: {name} cannot be read: {_short(e)}') from e
    if not np.isfinite(value).all():
      bad = int(np.count_nonzero(~np.isfinite(value)))
      raise UserError(f'{self.source}: {name}: expected finite values, got {bad} of {value.size} that are NaN or '
                      'infinite; the file is damaged, or the training diverged')
    return value


def open_file(path: os.PathLike) -> Tensors:
  """Opens a .safetensors file, an index of several, or a .npz file.

  Raises:
    UserError: the file does not exist, is damaged, or is of another kind.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  with path.open('rb') as file:
    start = file.read(64)
  if not start:
    raise UserError(f'{path}: {_EXPECTED}, got an empty file; did the download fail?')
  if path.name.endswith('.safetensors.index.json'):
    return _open_shards(path)
  if start[:4] == b'PK\x03\x04':
    return _open_npz(path)
  # A safetensors file begins with the 8-byte length of its header, which begins with '{'.
  if start[8:9] != b'{':
    kind = next((kind for prefix, kind in _MISTAKEN if start.startswith(prefix)), 'an unknown kind of file')
    raise UserError(f'{path}: {_EXPECTED}, got {kind}')
  return _open_safetensors(path)


def _open_safetensors(path):
  try:
    with safe_open(path, 'numpy') as file:
      slices = {name: file.get_slice(name) for name in file.keys()}
      kinds = {name: part.get_dtype() for name, part in slices.items()}
      shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
  except (SafetensorError, OSError, ValueError) as error:
    raise UserError(f'{path}: not a complete safetensors file ({_short(error)}); was the download cut off?') from error

  def load(name):
    with safe_open(path, 'numpy') as file:
      return file.get_tensor(name)
  floats = {name: shape for name, shape in shapes.items() if kinds[name] in _FLOATS}
  return Tensors(str(path), floats, frozenset(shapes.keys() - floats.keys()), load)


def _open_shards(path):
  index = read_json(path).get('weight_map')
  if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
    raise UserError(f'{path}: expected a weight_map of tensor names to file names')
  files = {}
  for name in sorted(set(index.values())):
    if pathlib.PurePath(name).name != name:
      raise UserError(f'{path}: expected file names in its own folder, got {name!r}')
    files[name] = open_file(path.parent / name)
  for name, file in index.items():
    if name not in files[file].shapes.keys() | files[file].others:
      raise UserError(f'{path}: expected {name} in {file}, but it is missing there')
  shapes = {name: files[file].shapes[name] for name, file in index.items() if name in files[file].shapes}
  return Tensors(str(path), shapes, frozenset(index.keys() - shapes.keys()), lambda name: files[index[name]].load(name))


def _open_npz(path):
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
      if any(member.filename.endswith('.pkl') for member in members):
        raise UserError(f'{path}: {_EXPECTED}, got a Python pickle (torch.save), which can run any code when read')
      if strange := [member.filename for member in members if not member.filename.endswith('.npy')]:
        raise UserError(f'{path}: {_EXPECTED}, got a zip archive with {strange[0]!r} in it')
      unpacked, size = sum(member.file_size for member in members), path.stat().st_size
      if unpacked > _MAX_EXPANSION * size + (1 << 20):
        raise UserError(f'{path}: {_EXPECTED}, got a zip bomb: {size:,} bytes that unpack to {unpacked:,}')
      headers = {member.filename.removesuffix('.npy'): _npy_header(archive, member, path) for member in members}
  except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
    raise UserError(f'{path}: not a complete .npz file ({_short(error)}); was the download cut off?') from error

  def load(name):
    with zipfile.ZipFile(path) as archive, archive.open(f'{name}.npy') as file:
      return np.lib.format.read_array(file, allow_pickle=False)
  floats = {name: shape for name, (shape, dtype) in headers.items() if dtype.kind == 'f'}
  return Tensors(str(path), floats, frozenset(headers.keys() - floats.keys()), load)


def _npy_header(archive, member, path):
  """(shape, dtype) of a .npy file in the archive. Raises UserError if its size does not match them."""
  name = member.filename.removesuffix('.npy')
  with archive.open(member) as file, _as_user_error(f'{path}: {name}'):
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file, max_header_size=_NPY_HEADER)
    values = member.file_size - file.tell()
  if dtype.hasobject:
    raise UserError(f'{path}: {_EXPECTED}, got one in which {name} is pickled, which can run arbitrary code when read')
  if math.prod(shape) * dtype.itemsize != values:
    raise UserError(f'{path}: {name}: expected {math.prod(shape) * dtype.itemsize} bytes for {dtype} {list(shape)}, '
                    f'got {values} bytes')
  return shape, dtype


def read_json(path: os.PathLike) -> dict[str, Any]:
  """Reads a JSON object from a file. Raises UserError for anything else."""
  try:
    value = json.loads(pathlib.Path(path).read_bytes().decode())
  except (ValueError, OSError, RecursionError) as error:
    raise UserError(f'{os.fspath(path)}: not JSON ({_short(error)})') from error
  if not isinstance(value, dict):
    raise UserError(f'{os.fspath(path)}: expected a JSON object, got {_short(value)}')
  return value


@contextlib.contextmanager
def _as_user_error(what):
  try:
    yield
  except (ValueError, TypeError, SyntaxError, OverflowError) as error:  # NumPy evaluates the literal in the header
    raise UserError(f'{what} is not an array ({_short(error)})') from error


def _short(value):
  text = ' '.join(str(value).split()) or type(value).__name__
  return text if len(text) <= 120 else text[:120] + ' ...'


def write(path: os.PathLike, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
  """Writes a .safetensors file atomically."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  save_file({name: np.asarray(value, order='C') for name, value in tensors.items()}, temporary, metadata)
  temporary.chmod(0o644)  # safetensors makes files that only their owner can read
  durable.replace(temporary, path)
