"""Fallback to the newest undamaged checkpoint, with a report of those that are damaged."""

from collections.abc import Callable
from typing import Any

from vit_jax.checkpoint import Checkpoints, Damaged
from vit_jax.errors import UserError
from vit_jax.parallel import processes


def newest_good(checkpoints: Checkpoints, like: Callable[[dict], dict[str, Any]],
                log_fault: Callable[[dict], str | None],
                note: Callable[[int, str, str], None]) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
  """(step, arrays, record) of the newest good checkpoint; None if there is none, or a single one that is damaged.

  Damaged checkpoints are renamed, never deleted. Several processes agree: a checkpoint that one of them cannot read is
  damaged for all.

  Args:
    checkpoints: the checkpoints of a run.
    like: (record) -> shapes, dtypes and shardings of the arrays.
    log_fault: (record) -> what is wrong with the log that belongs to a checkpoint, or None.
    note: called for each damaged checkpoint with its step, what is wrong, and where it was moved to.

  Raises:
    UserError: there are several checkpoints and none is good. A damaged disk is then unlikely, and nothing is changed.
  """
  steps, faults, found = processes.from_writer(checkpoints.steps), {}, None
  for step in reversed(steps):
    try:
      record = checkpoints.record(step)
      if fault := processes.from_writer(lambda record=record: log_fault(record)):
        raise Damaged(fault)
      found = step, checkpoints.restore(step, like(record)), record
      break
    except Damaged as damage:
      faults[step] = str(damage)
  if found is None and len(steps) > 1:
    said = '; '.join(f'step {step}: {fault}' for step, fault in faults.items())
    raise UserError(f'none of the {len(steps)} checkpoints can be used. {said}. Nothing was changed; to start again, '
                    'give another --workdir')
  for step, fault in faults.items():
    note(step, fault, processes.from_writer(lambda step=step: str(checkpoints.set_aside(step))))
  if faults:
    checkpoints.reload()
  return found
