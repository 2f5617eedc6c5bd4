"""The newest checkpoint that is what was saved, and what was wrong with those after it."""

from collections.abc import Callable
from typing import Any

from vit_jax.checkpoint import Checkpoints, Damaged
from vit_jax.errors import UserError
from vit_jax.parallel import processes


def newest_good(checkpoints: Checkpoints, like: dict[str, Any], log_fault: Callable[[dict], str | None],
                note: Callable[[int, str, str], None]) -> tuple[int, dict[str, Any], dict[str, Any]] | None:
  """(step, arrays, record) of the newest good checkpoint; None where there is none, or one alone and that is damaged.

  Damaged ones are set aside under another name, never deleted. Many processes find the same: what one of them cannot
  read is damaged for all.

  Args:
    like: shapes, types and shardings of the arrays.
    log_fault: (record) -> what is wrong with the log that belongs to a checkpoint, or None.
    note: called for each damaged one with its step, what is wrong, and where it now lies.

  Raises:
    UserError: there are several, and none is good. That is no damage of a disk: nothing is touched.
  """
  steps, faults, found = processes.from_writer(checkpoints.steps), {}, None
  for step in reversed(steps):
    try:
      record = checkpoints.record(step)
      if fault := processes.from_writer(lambda record=record: log_fault(record)):
        raise Damaged(fault)
      found = step, checkpoints.restore(step, like), record
      break
    except Damaged as damage:
      faults[step] = str(damage)
  if found is None and len(steps) > 1:
    said = '; '.join(f'step {step}: {fault}' for step, fault in faults.items())
    raise UserError(f'none of the {len(steps)} checkpoints can be used. {said}. Nothing was changed; to begin anew '
                    'give another --workdir')
  for step, fault in faults.items():
    note(step, fault, processes.from_writer(lambda step=step: str(checkpoints.set_aside(step))))
  if faults:
    checkpoints.reload()
  return found
