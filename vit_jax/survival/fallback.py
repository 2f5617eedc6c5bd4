"""Fallback to the newest undamaged checkpoint, with a report of those that are damaged."""

from collections.abc import Callable
from typing import Any

from vit_jax.checkpoint import Checkpoints, Damaged
from vit_jax.parallel import processes
from vit_jax.survival.local_tier import LocalTier


def newest_good(checkpoints: Checkpoints, like: Callable[[dict], dict[str, Any]],
                log_fault: Callable[[int, dict], str | None], note: Callable[[int, str, str], None],
                without_log: Callable[[int], str], tier: LocalTier | None = None,
                ) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
  """(step, arrays, record) of the newest good checkpoint; None if there is none, or a single one that is damaged.

  Damaged checkpoints of the run folder are renamed, never deleted; those of the local tier are deleted, as is all that
  it has of later steps. Several processes agree: a checkpoint that one of them cannot read is damaged for all.

  Args:
    checkpoints: the checkpoints of a run.
    like: (record) -> shapes, dtypes and shardings of the arrays.
    log_fault: (step, record) -> what is wrong with the log that belongs to a checkpoint, or None.
    note: called for each damaged checkpoint with its step, what is wrong, and where it was moved to; '' if deleted.
    without_log: (step) -> how to go on from a checkpoint whose arrays are good, but whose log is not.
    tier: the local tier of the run. Of the same step, the run folder's checkpoint is preferred.

  Raises:
    Damaged: there are several checkpoints and none is good. A damaged disk is then unlikely, and nothing is changed.
  """
  steps, faults, found, no_log = processes.from_writer(checkpoints.steps), {}, None, []
  places = [(step, True) for step in steps] + [(step, False) for step in (tier.steps if tier else ())]
  for step, in_folder in sorted(places, reverse=True):
    place = checkpoints if in_folder else tier.checkpoints
    try:
      record = place.record(step)
      if fault := processes.from_writer(lambda step=step, record=record: log_fault(step, record)):
        no_log += [step] if in_folder else []
        raise Damaged(fault)
      found = step, place.restore(step, like(record)), record
      break
    except Damaged as damage:
      if in_folder:
        faults[step] = str(damage)
      else:
        note(step, str(damage), '')
  if found is None and len(steps) > 1:
    said = '; '.join(f'step {step}: {fault}' for step, fault in faults.items())
    intact = next((step for step in no_log if _is_intact(checkpoints, step, like)), None)
    way = ('To start again, remove the folder of the checkpoints, or give another --workdir' if intact is None
           else processes.from_writer(lambda: without_log(intact)))
    raise Damaged(f'none of the {len(steps)} checkpoints can be used. {said}. Nothing was changed. {way}')
  for step, fault in faults.items():
    note(step, fault, processes.from_writer(lambda step=step: str(checkpoints.set_aside(step))))
  if faults:
    checkpoints.reload()
  if tier:
    tier.forget_after(found[0] if found else 0)
  return found


def _is_intact(checkpoints, step, like):
  try:
    checkpoints.restore(step, like(checkpoints.record(step)))
  except Damaged:
    return False
  return True
