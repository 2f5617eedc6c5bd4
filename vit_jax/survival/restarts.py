"""A limit on restarts without progress, so that a run that always fails does not occupy a cluster forever."""

from collections.abc import Iterable
from typing import Any

from vit_jax.errors import UserError
from vit_jax.exits import MAX_RESTARTS

BEGUN = 'begun'  # the event of a process that is about to resume from the checkpoint of a step


def check(events: Iterable[dict[str, Any]], step: int) -> None:
  """Checks, before a process resumes from the checkpoint of `step`, that previous restarts made progress.

  A run that ended with an error or by Ctrl-C has been seen by its user, so counting starts again. So after this error
  the same command tries three more times.

  Args:
    events: the events of previous processes.
    step: the step of the newest checkpoint; 0: none.

  Raises:
    UserError: three restarts made no newer checkpoint.
  """
  starts, before = 0, -1  # the number of consecutive starts without progress, and the step of the last start
  for event in events:
    if event['event'] == BEGUN and isinstance(event.get('step'), int):
      starts = starts + 1 if event['step'] <= before else 1
      before = event['step']
    elif event['event'] == 'failed' or event.get('by_hand'):
      starts = 0
  if step <= before and starts > MAX_RESTARTS:
    raise UserError(f'{MAX_RESTARTS} restarts made no checkpoint after step {step}: something ends the run each time '
                    'before it can save one. Save earlier (system.save_every, system.save_minutes), or look at the '
                    'output of the previous processes; the same command then tries again')
