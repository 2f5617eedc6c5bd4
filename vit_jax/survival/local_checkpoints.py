"""Checkpoints of one process on this machine: the parts of the arrays that its devices hold.

Orbax is for checkpoints of all processes: they wait for each other, so that a full disk of one would stop them all, and
only the first writes NumPy arrays. Here each process writes alone. Nothing is synced, because what the system has
accepted survives the end of a process; after a crash of the machine, digests show what was lost.
"""

import json
import os
import shutil
from concurrent import futures
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax import checkpoint, digest
from vit_jax.parallel import parts

_KEPT = 2  # where all processes are killed, some may have finished the newest and others not
_ARRAYS, _RECORD, _UNFINISHED = 'arrays.npz', 'record.json', '.unfinished'


class LocalCheckpoints:
  """The newest checkpoints in a folder of this process. They are saved in the background."""

  def __init__(self, folder: os.PathLike):
    """Opens the folder and creates it if it does not exist. Raises OSError if it cannot be written."""
    self._folder = Path(folder)
    self._folder.mkdir(parents=True, exist_ok=True)
    for unfinished in self._folder.glob(f'*{_UNFINISHED}'):
      shutil.rmtree(unfinished)
    self._writer, self._save = futures.ThreadPoolExecutor(max_workers=1), None

  def save(self, step: int, tree: dict[str, Any], record: dict[str, Any]) -> None:
    """Starts a save; returns when the arrays are copied from the devices. See `Checkpoints.save`."""
    self.wait()
    tree = jax.tree.map(parts.split, tree)
    record = checkpoint.sealed(record | {'arrays': digest.digests(tree)})
    arrays = {path: np.array(leaf) for path, leaf in _leaves(tree)}
    self._save = self._writer.submit(self._write, step, arrays, record)

  def _write(self, step, arrays, record):
    unfinished = self._folder / f'{step}{_UNFINISHED}'
    unfinished.mkdir()
    np.savez(unfinished / _ARRAYS, **arrays)
    (unfinished / _RECORD).write_bytes(json.dumps(record).encode())  # whole once its folder has its name
    unfinished.rename(self._folder / str(step))
    for old in self.steps()[:-_KEPT]:
      shutil.rmtree(self._folder / str(old))

  def saving(self) -> bool:
    """Whether a save is in progress. Raises the error of a save that failed."""
    if self._save is not None and self._save.done():
      self._save.result()
    return self._save is not None and not self._save.done()

  def wait(self) -> None:
    """Waits until the last save is written. Raises its error if it failed."""
    if self._save is not None:
      self._save.result()

  def steps(self) -> list[int]:
    """The steps of all finished checkpoints, in ascending order."""
    return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdecimal())

  def record(self, step: int) -> dict[str, Any]:
    """The record of a checkpoint. Raises Damaged on all processes if one of them cannot read it."""
    return checkpoint.together(
        lambda: checkpoint.unsealed(json.loads((self._folder / str(step) / _RECORD).read_text())))

  def restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """The global arrays of a checkpoint, of which every process reads its part; see `Checkpoints.restore`."""
    expected = self.record(step)['arrays']
    local = jax.tree.map(parts.shapes, like)

    def read():
      with np.load(self._folder / str(step) / _ARRAYS) as arrays:
        # NumPy's files have no bfloat16: such arrays come back as bytes.
        found = [arrays[path].view(leaf.dtype) for path, leaf in _leaves(local)]
      tree = jax.tree.unflatten(jax.tree.structure(local), found)
      checkpoint.compare(digest.digests(tree), expected)
      return tree

    return jax.tree.map(parts.join, like, checkpoint.together(read))


def _leaves(tree):
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf)
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
