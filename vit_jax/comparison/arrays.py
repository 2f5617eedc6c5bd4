"""Checkpoints of two runs: the first step at which arrays differ, and by how much, across devices and meshes."""

import contextlib
import dataclasses
import math
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vit_jax import checkpoint, digest, records
from vit_jax.comparison import numeric
from vit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Tensor:
  """An array that differs: its path in the checkpoint, and `numeric.arrays_apart`.

  Attributes:
    a, b: its type and shape in each run, such as float32[16,10].
    elements, of: how many of its elements differ, and how many it has; None where type or shape differ, as are
      `absolute` and `relative`.
  """
  name: str
  a: str
  b: str
  absolute: float | None = None
  relative: float | None = None
  elements: int | None = None
  of: int | None = None


@dataclasses.dataclass(frozen=True)
class Step:
  """The checkpoints of one step that differ: tensors, the largest relative difference first; names only one has."""
  step: int
  tensors: list[Tensor]
  only_a: list[str]
  only_b: list[str]

  def within(self, tolerance: float) -> bool:
    """Whether both have the same arrays, and none differs by more."""
    return not self.only_a and not self.only_b and not any(
        numeric.beyond(tensor.relative, tolerance) for tensor in self.tensors)


@dataclasses.dataclass(frozen=True)
class Checkpoints:
  """What two runs saved at the same steps.

  Attributes:
    compared: the steps that both have.
    arrays: how many arrays both have, over all these steps.
    differing: the steps at which any bit differs.
    first: the first of them. None if there are none.
    beyond: the first that differs by more than the tolerance.
    only_a, only_b: the steps that one of them has: older checkpoints are cleared away.
  """
  compared: list[int]
  arrays: int
  differing: list[int]
  first: Step | None
  beyond: Step | None
  only_a: list[int]
  only_b: list[int]


class Saved:
  """The checkpoints of one run folder. They are read as host arrays, whatever devices they were saved from."""

  def __init__(self, workdir: os.PathLike, without: tuple[str, ...] = ()):
    """Lists the checkpoints. Entries of the state in `without` are left out."""
    self.steps = records.saved_steps(workdir)
    self._folder, self._without = epath.Path(workdir) / records.CHECKPOINTS, without
    if '://' not in os.fspath(workdir):
      self._folder = self._folder.absolute()  # orbax needs an absolute path
    self._checkpoints = checkpoint.Checkpoints(workdir, read_only=True) if self.steps else None

  def close(self) -> None:
    if self._checkpoints:
      self._checkpoints.close()

  def digests(self, step: int) -> dict[str, int]:
    """{path of an array: its digest}, from the checkpoint's record. Old records have none: arrays are read instead."""
    with self._named(step):
      found = self._checkpoints.record(step).get('arrays')
    if not found:
      found = {path: value for entry in self.entries(step) for path, value in digest.digests(
          self._restored(step, entry)).items()}
    return {path: value for path, value in found.items() if path.partition('/')[0] not in self._without}

  def entries(self, step: int) -> list[str]:
    """The entries of the state that hold arrays: params, optimizer, step, ..."""
    return [entry for entry, inner in self._metadata(step).items() if jax.tree.leaves(inner)]

  def kinds(self, step: int) -> dict[str, str]:
    """{path of an array: its type and shape}; no array is read."""
    return {path: f'{np.dtype(leaf.dtype).name}[{",".join(map(str, leaf.shape))}]'
            for path, leaf in _named_leaves(self._metadata(step)).items()}

  def read(self, step: int, entry: str) -> dict[str, np.ndarray]:
    """{path: array} of one entry of the state, such as params. Raises a UserError where it is damaged."""
    return {path: np.asarray(leaf) for path, leaf in _named_leaves(self._restored(step, entry)).items()}

  def _restored(self, step, entry):
    place = jax.sharding.SingleDeviceSharding(jax.local_devices(backend='cpu')[0])
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
                        self._metadata(step)[entry])
    with self._named(step):
      return self._checkpoints.restore_some(step, {entry: like})

  def _metadata(self, step):
    with self._named(step):
      try:
        return ocp.PyTreeCheckpointer().metadata(self._folder / str(step) / 'state').item_metadata.tree
      except Exception as error:  # orbax and the libraries below raise a dozen kinds at damaged files
        raise checkpoint.Damaged(' '.join(str(error).split())[:200] or type(error).__name__) from error

  @contextlib.contextmanager
  def _named(self, step):
    """Names the checkpoint in errors about damage."""
    try:
      yield
    except checkpoint.Damaged as damage:
      raise UserError(f'{os.fspath(self._folder / str(step))}: this checkpoint cannot be read: {damage}') from damage


def compare(a: Saved, b: Saved, tolerance: float = 0.0) -> Checkpoints:
  """Compares the checkpoints of the steps that both have, by their digests.

  Arrays are read at the first step whose digests differ. With a tolerance they are also read at later steps, up to the
  first that differs by more.
  """
  compared = [step for step in a.steps if step in b.steps]
  pairs = {step: (a.digests(step), b.digests(step)) for step in compared}
  differing = [step for step, (ours, theirs) in pairs.items() if ours != theirs]
  first = beyond = None
  for step in differing:
    found = _step(a, b, step, *pairs[step])
    first = first or found
    if not found.within(tolerance):
      beyond = found
      break
  arrays = sum(len(ours.keys() & theirs.keys()) for ours, theirs in pairs.values())
  return Checkpoints(compared, arrays, differing, first, beyond, [step for step in a.steps if step not in b.steps],
                     [step for step in b.steps if step not in a.steps])


def _step(a, b, step, ours, theirs):
  """What differs at a step. Entries of the state are read one after another, so that only one is in memory."""
  kinds_a, kinds_b = a.kinds(step), b.kinds(step)
  kind = {name: (kinds_a.get(name, 'missing'), kinds_b.get(name, 'missing'))
          for name in ours if name in theirs and ours[name] != theirs[name]}
  alike = [name for name, (its, other) in kind.items() if its == other]
  tensors = [Tensor(name, *kind[name]) for name in kind if name not in alike]
  for entry in dict.fromkeys(name.partition('/')[0] for name in alike):
    arrays_a, arrays_b = a.read(step, entry), b.read(step, entry)
    for name in (name for name in alike if name.partition('/')[0] == entry):
      tensors.append(Tensor(name, *kind[name], *numeric.arrays_apart(arrays_a[name], arrays_b[name]),
                            arrays_a[name].size))
  size = lambda tensor: math.inf if tensor.relative is None else tensor.relative
  return Step(step, sorted(tensors, key=size, reverse=True), [name for name in ours if name not in theirs],
              [name for name in theirs if name not in ours])


def _named_leaves(tree: Any) -> dict[str, Any]:
  """{path: leaf}, with the names that digests have."""
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf
          for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
