"""A limit on restarts without progress, so that a run that always fails does not occupy a cluster forever."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.exits import MAX_RESTARTS
from vit_jax.parallel import processes

OPENING = 'opening'  # the event of a process that is about to open its data, for which it may need too much memory
BEGUN = 'begun'  # the event of a process that is about to resume from the checkpoint of a step


@contextlib.contextmanager
def opening(folder: os.PathLike | str | None) -> Iterator[None]:
  """A context in which a process opens the data of a run: being killed in it counts as a restart without progress.

  All processes must come here. A local folder that does not exist yet is not created, nor is a finished run touched.

  Args:
    folder: of the run; None: it is not known yet.

  Raises:
    UserError: as `check`.
  """
  noted = folder is not None and processes.from_writer(lambda: _note_opening(folder))
  try:
    yield
  except Exception as error:
    if noted and processes.is_writer():
      with contextlib.suppress(Exception):  # the error itself is to be heard
        _append(folder, {'event': 'failed', 'why': str(error) or type(error).__name__})
    raise


def _note_opening(folder):
  folder = epath.Path(folder)
  if '://' not in os.fspath(folder) and not (folder / records.EVENTS).exists():
    return False
  if (records.read_run(folder) or {}).get('status') == 'finished':
    return False
  step = max(records.saved_steps(folder), default=0)
  check(records.read_events(folder / records.EVENTS), step)
  _append(folder, {'event': OPENING, 'step': step})
  return True


def _append(folder, event):
  with contextlib.closing(records.Events(epath.Path(folder) / records.EVENTS)) as events:
    events.append(event)


def check(events: Iterable[dict[str, Any]], step: int) -> None:
  """Checks, before a process resumes from the checkpoint of `step`, that previous restarts made progress.

  A run that ended with an error or by Ctrl-C has been seen by its user, so counting starts again. So after this error
  the same command tries three more times. A process that was killed while it opened its data counts as well.

  Args:
    events: the events of previous processes; an `OPENING` at the end is taken to be this process's own.
    step: the step of the newest checkpoint; 0: none.

  Raises:
    UserError: three restarts made no newer checkpoint.
  """
  starts, before = 0, -1  # the number of consecutive starts without progress, and the step of the last start
  for event in _starts(events):
    if event['event'] in (OPENING, BEGUN):
      starts = starts + 1 if event['step'] <= before else 1
      before = event['step']
    else:
      starts = 0
  if step <= before and starts > MAX_RESTARTS:
    raise UserError(f'{MAX_RESTARTS} restarts made no checkpoint after step {step}: something ends the run each time '
                    'before it can save one. Save earlier (system.save_every, system.save_minutes), or look at the '
                    'output of the previous processes; the same command then tries again')


def _starts(events):
  """Of the events, one per process that began (`BEGUN`, or `OPENING` if it came no further), and ends by hand."""
  opened = None
  for event in events:
    starts = event['event'] in (OPENING, BEGUN) and isinstance(event.get('step'), int)
    if opened and (starts and event['event'] == OPENING or _seen(event)):
      yield opened
    if starts or _seen(event):
      opened = event if event['event'] == OPENING else None
      if not opened:
        yield event


def _seen(event):
  return event['event'] == 'failed' or bool(event.get('by_hand'))
