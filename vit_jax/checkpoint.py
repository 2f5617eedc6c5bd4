"""Checkpoints: plain nested dicts of arrays and a small JSON record, through orbax.

On disk there is nothing of Flax's or optax's classes: any version, and any other program, can read it.
"""

import os
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

FOLDER = 'checkpoints'


class Checkpoints:
  """The checkpoints of one run folder: saved in the background, the last few, the best and the pinned ones kept."""

  def __init__(self, workdir: os.PathLike, keep_last: int = 2, pinned: Sequence[int] = (), read_only: bool = False):
    """Opens the folder, and makes it where it is missing.

    Args:
      workdir: the run folder.
      keep_last: how many of the newest are kept, beside the best.
      pinned: steps whose checkpoints are never cleared away.
      read_only: touch nothing: another process may be writing there.
    """
    best = preservation_policy.BestN(get_metric_fn=lambda metrics: -metrics['lowest'], n=1,
                                     keep_checkpoints_without_metrics=False)
    keep = [preservation_policy.LatestN(keep_last), best, preservation_policy.CustomSteps(pinned)]
    folder = epath.Path(workdir) / FOLDER
    self._manager = ocp.CheckpointManager(
        folder if '://' in os.fspath(folder) else folder.absolute(),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(keep), read_only=read_only,
            create=not read_only, cleanup_tmp_directories=not read_only, enable_async_checkpointing=True))

  def save(self, step: int, tree: dict[str, Any], record: dict[str, Any], metric: float | None = None) -> None:
    """Starts saving; returns once the arrays are copied off the device.

    Args:
      step: the number of finished steps.
      tree: nested dicts of arrays.
      record: JSON values.
      metric: lower is better; the checkpoint with the lowest is kept. None: not a candidate.
    """
    self._manager.save(
        step, args=ocp.args.Composite(state=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record)),
        metrics=None if metric is None else {'lowest': metric}, force=True)

  def latest(self) -> int | None:
    """The newest finished checkpoint's step."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """The steps of all finished checkpoints, in order."""
    return sorted(self._manager.all_steps())

  def record(self, step: int) -> dict[str, Any]:
    """The JSON record of a checkpoint."""
    return self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore())).record

  def restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint, placed as `like` (ShapeDtypeStructs with shardings) says."""
    restored = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))
    return restored.state

  def wait(self) -> None:
    """Until what was started is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.wait_until_finished()
    self._manager.close()


def abstract(tree: dict[str, Any]) -> dict[str, Any]:
  """Shapes, types and shardings of a tree of arrays: what `restore` wants."""
  return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)
