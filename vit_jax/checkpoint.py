"""Checkpoints: nested dicts of arrays and a small JSON record, saved with Orbax.

Checkpoints contain no Flax or Optax classes, so any version and any other program can read them. The record has a
digest of every array and a checksum of itself, so that changes on disk are detected.
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

from vit_jax import buckets, digest, records
from vit_jax.errors import UserError
from vit_jax.parallel import processes

_LATE = ('Event loop is closed', 'Encountered error while reading array index')


class Damaged(UserError):
  """A checkpoint differs from what was saved, or cannot be read; the message says how."""


class Checkpoints:
  """The checkpoints of a run folder. They are saved in the background; the latest, best and pinned ones are kept."""

  def __init__(self, workdir: os.PathLike, keep_last: int = 2, pinned: Sequence[int] = (),
               keep_every: int | None = None, penalty: Callable[[int], float | None] = lambda step: None,
               read_only: bool = False):
    """Opens the folder and creates it if it does not exist.

    Args:
      workdir: the run folder.
      keep_last: the number of latest checkpoints to keep.
      pinned: steps whose checkpoints are never deleted.
      keep_every: checkpoints at multiples of this step are never deleted; None for no such multiples.
      penalty: maps a step to its metric, where lower is better, or to None. The checkpoint with the lowest is kept.
      read_only: whether to leave the folder untouched, because another process may be writing to it.

    Raises:
      UserError: it is in a store where Orbax keeps none.
    """
    keep = [preservation_policy.LatestN(keep_last), preservation_policy.CustomSteps(pinned), _Best(penalty)]
    if keep_every:
      keep.append(preservation_policy.EveryNSteps(keep_every))
    buckets.check_run(workdir, os.fspath(workdir))
    self._folder = epath.Path(workdir) / records.CHECKPOINTS
    if '://' not in os.fspath(self._folder):
      self._folder = self._folder.absolute()
    self._manager = ocp.CheckpointManager(
        self._folder, options=ocp.CheckpointManagerOptions(
            preservation_policy=preservation_policy.AnyPreservationPolicy(keep), read_only=read_only,
            create=not read_only, cleanup_tmp_directories=not read_only, enable_async_checkpointing=True))

  def save(self, step: int, tree: dict[str, Any], record: dict[str, Any]) -> None:
    """Starts a save; returns when the arrays are copied from the devices.

    Args:
      step: the number of finished steps.
      tree: nested dicts of arrays.
      record: a JSON object.
    """
    record = sealed(record | {'step': step, 'arrays': digest.digests(tree)})
    self._manager.save(
        step, args=ocp.args.Composite(state=ocp.args.StandardSave(tree), record=ocp.args.JsonSave(record)), force=True)

  def saving(self) -> bool:
    """Whether a save is in progress. Raises the error of a save that failed."""
    self._manager.check_for_errors()
    return self._manager.is_saving_in_progress()

  def latest(self) -> int | None:
    """The step of the latest finished checkpoint; None if there is none."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """The steps of all finished checkpoints, in ascending order."""
    return sorted(self._manager.all_steps())

  def record(self, step: int) -> dict[str, Any]:
    """The JSON record of a checkpoint. Raises Damaged on all processes if one of them cannot read it."""
    path = self._folder / str(step) / 'record'

    def read():
      record = unsealed(_alone(ocp.JsonCheckpointHandler, path, ocp.args.JsonRestore()))
      if (saved := record.get('step', step)) != step:  # older ones do not say
        raise Damaged(f'it holds step {saved}: its folder was renamed; name it {saved} again')
      return record
    return together(read)

  def restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint.

    Args:
      step: the step of the checkpoint.
      like: the tree as ShapeDtypeStructs with shardings, which determine where the arrays are placed.

    Raises:
      Damaged: on all processes, if one of them cannot read its part or if digests differ.
    """
    return self._verified(step, ocp.StandardCheckpointHandler, ocp.args.StandardRestore(like))

  def restore_some(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    """Like `restore`, but reads only the arrays in `like`."""
    what = ocp.args.PyTreeRestore(like, restore_args=ocp.checkpoint_utils.construct_restore_args(like),
                                  partial_restore=True)
    return self._verified(step, ocp.PyTreeCheckpointHandler, what, some=True)

  def _verified(self, step, handler, what, some=False):
    """Reads arrays and compares their digests to the record; older checkpoints have none."""
    every = self.record(step).get('arrays') or {}
    path = self._folder / str(step) / 'state'
    tree = together(lambda: _alone(handler, path, what))
    found = digest.digests(tree) if every else {}
    compare(found, {path: value for path, value in every.items() if path in found or not some})
    return tree

  def set_aside(self, step: int) -> epath.Path:
    """Renames the folder of a damaged checkpoint; returns the new path. Call `reload` afterwards."""
    names = (f'damaged-{step}', *(f'damaged-{step}-{i}' for i in range(2, 1000)))
    new_path = next(path for path in map(self._folder.joinpath, names) if not path.exists())
    (self._folder / str(step)).rename(new_path)
    return new_path

  def reload(self) -> None:
    """Updates the list of checkpoints from disk."""
    self._manager.reload()

  def wait(self) -> None:
    """Waits until all saves are on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    self._manager.wait_until_finished()
    self._manager.close()


class _Best(preservation_policy.PreservationPolicy):
  """Keeps the checkpoint with the lowest penalty; of several, the latest."""

  def __init__(self, penalty):
    self._penalty = penalty

  def should_preserve(self, checkpoints, *, context):
    penalties = {info.step: self._penalty(info.step) for info in checkpoints}
    known = [step for step in sorted(penalties, reverse=True) if penalties[step] is not None]
    best = min(known, key=penalties.get, default=None)
    return [info.step == best for info in checkpoints]


def abstract(tree: dict[str, Any]) -> dict[str, Any]:
  """The shapes, dtypes and shardings of a tree of arrays, as an argument of `restore`."""
  return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tree)


def hush_late_callbacks() -> None:
  """Suppresses tracebacks of callbacks that arrive after a failed read or write.

  After a failure, TensorStore calls back into an event loop that Orbax has closed, and the reads of the other arrays
  fail without being awaited. Python would print a traceback for each, in addition to the message about the failure.
  """
  before = sys.unraisablehook

  def hook(unraisable):
    if not any(late in str(unraisable.exc_value) for late in _LATE):
      before(unraisable)
  sys.unraisablehook = hook


def _alone(handler, path, what):
  """Reads in this process alone. The manager would wait for the other processes, which may have failed."""
  me = jax.process_index()
  options = ocp.options.MultiprocessingOptions(primary_host=me, active_processes={me},
                                               barrier_sync_key_prefix=f'reader{me}')
  reader = ocp.Checkpointer(handler(multiprocessing_options=options), multiprocessing_options=options)
  with contextlib.closing(reader):
    return reader.restore(path, what)


def compare(found: dict[str, int], expected: dict[str, int]) -> None:
  """Raises Damaged if the digests of arrays differ from those in their record."""
  if wrong := sorted(path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)):
    raise Damaged(f'{len(wrong)} of {len(expected)} arrays differ from what was saved ({", ".join(wrong[:3])})')


def together(read: Callable[[], Any]) -> Any:
  """The result of `read`. Raises Damaged on all processes if one does, so that all resume from the same step."""
  result, fault = None, ''
  try:
    result = _read(read)
  except Damaged as damage:
    fault = str(damage)
  for process, message in enumerate(processes.all_say(fault)):
    if message:
      raise Damaged(message if jax.process_count() == 1 else f'process {process}: {message}')
  return result


def _read(read):
  """The result of `read`. Raises Damaged if it fails twice, because a network can fail once.

  The underlying libraries raise many kinds of exceptions for damaged files. Running out of memory is passed on.
  """
  for last in (False, True):
    try:
      with _silenced(logging.getLogger('asyncio')):  # it would print tracebacks of exceptions that are caught here
        return read()
    except Damaged:
      raise
    except Exception as error:
      if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
        raise
      if last:
        message = ' '.join(str(error).split()) or type(error).__name__
        raise Damaged(message if len(message) <= 200 else message[:200] + ' ...') from error


@contextlib.contextmanager
def _silenced(logger):
  level = logger.level
  logger.setLevel(logging.CRITICAL)
  try:
    yield
  finally:
    logger.setLevel(level)


def sealed(record: dict[str, Any]) -> dict[str, Any]:
  """A record with a checksum of itself."""
  return record | {'checksum': _checksum(record)}


def unsealed(record: dict[str, Any]) -> dict[str, Any]:
  """Verifies and removes the checksum of a record. Older records have neither a checksum nor digests."""
  rest = {key: value for key, value in record.items() if key != 'checksum'}
  if ('checksum' in record or 'arrays' in rest) and record.get('checksum') != _checksum(rest):
    raise Damaged('its record differs from what was saved')
  return rest


def _checksum(record):
  return zlib.crc32(json.dumps(record, sort_keys=True).encode())
