"""Small files, written whole: after a crash of the process or the machine there is the old file or the new one."""

import os
import pathlib

from etils import epath


def write(path: os.PathLike | str, content: str | bytes) -> None:
  """Writes a file, local or in a bucket, and creates its folder. Local files are on disk when this returns.

  Raises:
    OSError: such as for a full disk; the old file is then unchanged.
  """
  content = content.encode() if isinstance(content, str) else content
  if '://' in os.fspath(path):  # object stores replace objects as a whole
    epath.Path(path).write_bytes(content)
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_bytes(content)
    replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)


def replace(temporary: os.PathLike | str, path: os.PathLike | str) -> None:
  """Renames a complete local file to `path` in the same folder, after its content is on disk."""
  _sync(temporary)
  os.replace(temporary, path)
  _sync(pathlib.Path(path).parent)  # the new name is an entry of the folder


def _sync(path):
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
