"""Checkpoints: plain nested dicts of arrays and a small JSON record, through orbax.

On disk there is nothing of Flax's or optax's classes: any version, and any other program, can read it. The record
carries a digest of every array and a checksum of itself, so that a checkpoint that has changed on disk is noticed.
"""

import contextlib
import json
import logging
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vit_jax import digest, records
from vit_jax.errors import UserError
from vit_jax.parallel import processes

_LATE = ('Event loop is closed', 'Encountered error while reading array index')


class Damaged(UserError):
  """A checkpoint that is not what was saved; the message says what is wrong with it."""


class Checkpoints:
  """The checkpoints of one run folder: saved in the background, the last few, the best and the pinned ones kept."""

  def __init__(self, workdir: os.PathLike, keep_last: int = 2, pinned: Sequence[int] = (),
               keep_every: int | None = None, penalty: Callable[[int], float | None] = lambda step: None,
               read_only: bool = False):
    """Opens the folder, and makes it where it is missing.

    Args:
      workdir: the run folder.
      keep_last: how many of the newest are kept, beside the best.
      pinned: steps whose checkpoints are never cleared away.
      keep_every: neither are those of multiples of this.
      penalty: the metric of a step, lower is better; the checkpoint with the lowest is kept. None: no candidate.
      read_only: touch nothing: another process may be writing there.
    """
    keep = [preservation_policy.LatestN(keep_last), preservation_policy.CustomSteps(pinned), _Best(penalty)]
    if keep_every:
      keep.append(preservation_policy.EveryNSteps(keep_every))
    self._folder = epath.Path(workdir) / records.CHECKPOINTS
    if '://' not in os.fspath(self._folder):
      self._folder = self._folder.absolute()
    self._manager = ocp.CheckpointManager(
        self._folder, options=ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(keep), read_only=read_only,
            create=not read_only, cleanup_tmp_directories=not read_only, enable_async_checkpointing=True))

  def save(self, step: int, tree: dict[str, Any], record: dict[str, Any]) -> None:
    """Starts saving; returns once the arrays are copied off the device.

    Args:
      step: the number of finished steps.
      tree: nested dicts of arrays.
      record: JSON values.
    """
    record = _sealed(record | {'arrays': digest.digests(tree)})
    self._manager.save(
        step, args=ocp.args.Composite(state=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record)), force=True)

  def saving(self) -> bool:
    """Whether a save is still on its way to the disk; one that failed raises what went wrong."""
    self._manager.check_for_errors()
    return self._manager.is_saving_in_progress()

  def latest(self) -> int | None:
    """The newest finished checkpoint's step."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """The steps of all finished checkpoints, in order."""
    return sorted(self._manager.all_steps())

  def record(self, step: int) -> dict[str, Any]:
    """The JSON record of a checkpoint. Raises Damaged, on every process where one cannot read it."""
    path = self._folder / str(step) / 'record'
    return _together(lambda: _unsealed(_alone(ocp.JsonCheckpointHandler, path, ocp.args.JsonRestore())))

  def restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint, placed as `like` (ShapeDtypeStructs with shardings) says.

    Raises:
      Damaged: on every process, where one cannot read its part or the digests are not those that were saved.
    """
    return self._verified(step, like, ocp.StandardCheckpointHandler, ocp.args.StandardRestore(like))

  def restore_some(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """As `restore`, of those of its entries (params, stats, ...) alone that `like` names: no more is read."""
    what = ocp.args.PyTreeRestore(like, restore_args=ocp.checkpoint_utils.construct_restore_args(like),
                                  partial_restore=True)
    return self._verified(step, like, ocp.PyTreeCheckpointHandler, what)

  def _verified(self, step, like, handler, what):
    """What is read, whose digests must be those of the record; older ones have none."""
    every = self.record(step).get('arrays') or {}
    expected = {path: value for path, value in every.items() if path.partition('/')[0] in like}
    path = self._folder / str(step) / 'state'
    tree = _together(lambda: _alone(handler, path, what))
    found = digest.digests(tree) if every else {}
    if wrong := sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)):
      raise Damaged(f'{len(wrong)} of {len(expected)} arrays are not what was saved ({", ".join(wrong[:3])})')
    return tree

  def set_aside(self, step: int) -> epath.Path:
    """Gives a checkpoint's folder another name; returns where it now lies. `reload` then takes note."""
    names = (f'damaged-{step}', *(f'damaged-{step}-{i}' for i in range(2, 1000)))
    there = next(path for path in map(self._folder.joinpath, names) if not path.exists())
    (self._folder / str(step)).rename(there)
    return there

  def reload(self) -> None:
    """Looks again at what is on disk."""
    self._manager.reload()

  def wait(self) -> None:
    """Until what was started is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.wait_until_finished()
    self._manager.close()


class _Best(preservation_policy.PreservationPolicy):
  """Keeps the checkpoint with the lowest penalty, the later of equals."""

  def __init__(self, penalty):
    self._penalty = penalty

  def should_preserve(self, checkpoints, *, context):
    penalties = {info.step: self._penalty(info.step) for info in checkpoints}
    known = [step for step in sorted(penalties, reverse=True) if penalties[step] is not None]
    best = min(known, key=penalties.get, default=None)
    return [info.step == best for info in checkpoints]


def abstract(tree: dict[str, Any]) -> dict[str, Any]:
  """Shapes, types and shardings of a tree of arrays: what `restore` wants."""
  return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)


def hush_late_callbacks() -> None:
  """Keeps off the screen what comes too late.

  After a read or write that failed, TensorStore calls back into an event loop that orbax has closed, and the reads of
  the other arrays fail unheard: Python prints a traceback of each beside the message that tells what failed.
  """
  before = sys.unraisablehook

  def hook(unraisable):
    if not any(late in str(unraisable.exc_value) for late in _LATE):
      before(unraisable)
  sys.unraisablehook = hook


def _alone(handler, path, what):
  """Reads for this process alone: the manager's own reading waits for the others, which may have failed."""
  me = jax.process_index()
  options = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me},
                                               barrier_sync_key_prefix=f'reader{me}')
  reader = ocp.Checkpointer(handler(multiprocessing_options=options), multiprocessing_options=options)
  with contextlib.closing(reader):
    return reader.restore(path, what)


def _together(read):
  """What `read` gives; Damaged on every process where it is so on one: else some would go on from another step."""
  found, fault = None, ''
  try:
    found = _read(read)
  except Damaged as damage:
    fault = str(damage)
  for process, said in enumerate(processes.all_say(fault)):
    if said:
      raise Damaged(said if jax.process_count() == 1 else f'process {process}: {said}')
  return found


def _read(read):
  """What `read` gives; Damaged where it fails twice, since a network may fail once.

  The libraries below raise a dozen kinds of exceptions at damaged files. Being out of memory is none of those.
  """
  for last in (False, True):
    try:
      with _hushed(logging.getLogger('asyncio')):  # it would print the traceback of what is caught here
        return read()
    except Damaged:
      raise
    except Exception as error:
      if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        raise
      if last:
        words = ' '.join(str(error).split()) or type(error).__name__
        raise Damaged(words if len(words) <= 200 else words[:200] + ' ...') from error


@contextlib.contextmanager
def _hushed(logger):
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    logger.setLevel(level)


def _sealed(record):
  return record | {'checksum': _checksum(record)}


def _unsealed(record):
  """The record without its checksum, which must be right; one from before there were checksums has no digests."""
  rest = {key: value for key, value in record.items() if key != 'checksum'}
  if ('checksum' in record or 'arrays' in rest) and record.get('checksum') != _checksum(rest):
    raise Damaged('its record is not what was saved')
  return rest


def _checksum(record):
  return zlib.crc32(json.dumps(record, sort_keys=True).encode())
