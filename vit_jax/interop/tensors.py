"""Files of named tensors, opened without trusting them.

Names, shapes and types are read first; a tensor's values only when they are asked for, one at a time. Nothing is ever
unpickled.
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

from vit_jax.errors import UserError

INDEX = 'model.safetensors.index.json'
_UNPACKED = 20  # times what a file takes on disk: trained weights hardly shrink at all
_FLOATS = ('F64', 'F32', 'F16', 'BF16')
_NPY_HEADER = 1 << 16  # bytes, at most, before the values of a .npy file
# What people give in place of a file of tensors, by how it begins.
_MISTAKEN = (
    (b'version https://git-lfs', 'a pointer to a file in Git LFS, not the file: fetch it with `git lfs pull`'),
    (b'\x80', 'a Python pickle, which can run any code when it is read'),
    (b'\x89HDF', 'an HDF5 file'),
    (b'<', 'a web page: the download went wrong'),
    (b'{', 'a text file of JSON'),
)
_RIGHT = 'weights come as .safetensors or .npz'


@dataclasses.dataclass(frozen=True)
class Tensors:
  """The tensors of one file, or of several that belong together.

  Attributes:
    source: for messages.
    shapes: of each tensor of floats, by name.
    others: names of what is no floats: counters and tables of indices.
    load: name -> its values.
  """
  source: str
  shapes: dict[str, tuple[int, ...]]
  others: frozenset[str]
  load: Callable[[str], np.ndarray]

  def __getitem__(self, name: str) -> np.ndarray:
    """float32. Raises UserError for values that are not numbers, or a damaged file."""
    try:
      value = np.asarray(self.load(name), np.float32)
    except (SafetensorError, ValueError, OSError, EOFError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as e:
      raise UserError(f'{self.source}: {name} cannot be read: {_short(e)}') from e
    if not np.isfinite(value).all():
      bad = int(np.count_nonzero(~np.isfinite(value)))
      raise UserError(f'{self.source}: {name} has {bad} of {value.size} values that are NaN or infinite: '
                      'the file was damaged, or training had diverged')
    return value


def open_file(path: os.PathLike) -> Tensors:
  """The tensors of a .safetensors file, of an index of several, or of a .npz file.

  Raises:
    UserError: what is wrong with it, in words.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  with path.open('rb') as file:
    start = file.read(64)
  if not start:
    raise UserError(f'{path}: an empty file of 0 bytes; was the download cut off?')
  if path.name.endswith('.safetensors.index.json'):
    return _open_shards(path)
  if start[:4] == b'PK\x03\x04':
    return _open_npz(path)
  # A safetensors file begins with the length of its header in 8 bytes; then comes '{'.
  if start[8:9] != b'{':
    said = next((words for begin, words in _MISTAKEN if start.startswith(begin)), 'no file of weights that is known')
    raise UserError(f'{path}: {said}; {_RIGHT}')
  return _open_safetensors(path)


def _open_safetensors(path):
  try:
    with safe_open(path, 'numpy') as file:
      slices = {name: file.get_slice(name) for name in file.keys()}
      kinds = {name: part.get_dtype() for name, part in slices.items()}
      shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
  except (SafetensorError, OSError, ValueError) as error:
    raise UserError(f'{path}: not a whole safetensors file ({_short(error)}); was the download cut off?') from error

  def load(name):
    with safe_open(path, 'numpy') as file:
      return file.get_tensor(name)
  floats = {name: shape for name, shape in shapes.items() if kinds[name] in _FLOATS}
  return Tensors(str(path), floats, frozenset(shapes.keys() - floats.keys()), load)


def _open_shards(path):
  index = read_json(path).get('weight_map')
  if not isinstance(index, dict) or not all(isinstance(name, str) for name in index.values()):
    raise UserError(f'{path}: no weight_map of names to files in it')
  files = {}
  for name in sorted(set(index.values())):
    if pathlib.PurePath(name).name != name:
      raise UserError(f'{path}: names the file {name!r}, outside its own folder')
    files[name] = open_file(path.parent / name)
  for name, file in index.items():
    if name not in files[file].shapes.keys() | files[file].others:
      raise UserError(f'{path}: {name} should be in {file}, and is not')
  shapes = {name: files[file].shapes[name] for name, file in index.items() if name in files[file].shapes}
  return Tensors(str(path), shapes, frozenset(index.keys() - shapes.keys()), lambda name: files[index[name]].load(name))


def _open_npz(path):
  try:
    with zipfile.ZipFile(path) as archive:
      members = archive.infolist()
      if any(member.filename.endswith('.pkl') for member in members):
        raise UserError(f'{path}: a Python pickle (torch.save), which can run any code when it is read; {_RIGHT}')
      if strange := [member.filename for member in members if not member.filename.endswith('.npy')]:
        raise UserError(f'{path}: a zip archive with {strange[0]!r} in it, no .npz of arrays; {_RIGHT}')
      unpacked, size = sum(member.file_size for member in members), path.stat().st_size
      if unpacked > _UNPACKED * size + (1 << 20):
        raise UserError(f'{path}: {size:,} bytes that would unpack to {unpacked:,}: a zip bomb, not weights')
      headers = {member.filename.removesuffix('.npy'): _npy_header(archive, member, path) for member in members}
  except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
    raise UserError(f'{path}: not a whole .npz file ({_short(error)}); was the download cut off?') from error

  def load(name):
    with zipfile.ZipFile(path) as archive, archive.open(f'{name}.npy') as file:
      return np.lib.format.read_array(file, allow_pickle=False)
  floats = {name: shape for name, (shape, dtype) in headers.items() if dtype.kind == 'f'}
  return Tensors(str(path), floats, frozenset(headers.keys() - floats.keys()), load)


def _npy_header(archive, member, path):
  """(shape, dtype) of a .npy file in the archive, whose size must be what these need."""
  name = member.filename.removesuffix('.npy')
  with archive.open(member) as file, _as_user_error(f'{path}: {name}'):
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file, max_header_size=_NPY_HEADER)
    values = member.file_size - file.tell()
  if dtype.hasobject:
    raise UserError(f'{path}: {name} is pickled, which can run any code when it is read; {_RIGHT}')
  if math.prod(shape) * dtype.itemsize != values:
    raise UserError(f'{path}: {name} should be {dtype} {list(shape)}, and has {values} bytes')
  return shape, dtype


def read_json(path: os.PathLike) -> dict[str, Any]:
  """A JSON object. Raises UserError for anything else."""
  try:
    value = json.loads(pathlib.Path(path).read_bytes().decode())
  except (ValueError, OSError, RecursionError) as error:
    raise UserError(f'{os.fspath(path)}: not JSON ({_short(error)})') from error
  if not isinstance(value, dict):
    raise UserError(f'{os.fspath(path)}: {_short(value)}, where a JSON object is needed')
  return value


@contextlib.contextmanager
def _as_user_error(what):
  try:
    yield
  except (ValueError, TypeError, SyntaxError, OverflowError) as error:  # numpy evaluates the header's literal
    raise UserError(f'{what} is no array ({_short(error)})') from error


def _short(value):
  text = ' '.join(str(value).split()) or type(value).__name__
  return text if len(text) <= 120 else text[:120] + ' ...'


def write(path: os.PathLike, tensors: dict[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
  """Writes a .safetensors file, whole or not at all under its name."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  save_file({name: np.asarray(value, order='C') for name, value in tensors.items()}, temporary, metadata)
  temporary.chmod(0o644)  # safetensors makes files that nobody else may read
  temporary.replace(path)
