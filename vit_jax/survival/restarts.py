"""Ends a run that is started again and again and gets nowhere, so that a cluster does not pay for it for ever."""

from collections.abc import Iterable
from typing import Any

from vit_jax.errors import UserError
from vit_jax.exits import MAX_RESTARTS

BEGUN = 'begun'  # the event of a process that is about to go on from the checkpoint of a step


def check(events: Iterable[dict[str, Any]], step: int) -> None:
  """To be asked before a process goes on from the checkpoint of `step` (0: none), with the events of those before it.

  A run that ended with an error, or by a person's Ctrl-C, has been looked at: counting begins anew. So after this
  error the same command tries three times more.

  Raises:
    UserError: three restarts brought no newer checkpoint.
  """
  starts, before = 0, -1  # how many got no further than the one before them, and where the last one began
  for event in events:
    if event['event'] == BEGUN:
      starts = starts + 1 if event['step'] <= before else 1
      before = event['step']
    elif event['event'] == 'failed' or event.get('by_hand'):
      starts = 0
  if step <= before and starts > MAX_RESTARTS:
    raise UserError(f'{MAX_RESTARTS} restarts brought no checkpoint after step {step}: something ends the run each '
                    'time before it can save one. Save earlier (system.save_every, system.save_minutes), or look at '
                    'the output of the processes before; the same command then tries again')
