"""How a run spent its time: steps, compilation, waiting for data, saving, evaluation, starting, and lost work.

Each process keeps a `Clock`, whose reading is written to events.jsonl with every save. `breakdown` combines the events
of all restarts. Time after the checkpoint from which the next process resumed counts as lost.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

STARTS = ('start', 'resume', 'branch')  # the events that mark the start of a process
_KINDS = ('step', 'start', 'compile', 'data', 'evaluate', 'save')
LOST = 'lost'
SO_FAR = 'seconds_so_far'  # the field of an event that holds the reading of a clock


class Clock:
  """The time of one process by kind. After the start, time that is not measured counts as steps."""

  def __init__(self, share: float = 1.0):
    """Starts the clock.

    Args:
      share: the fraction of the process's time to count, for a process that trains several runs at once.
    """
    self._share = share
    self._began = time.perf_counter()
    self._seconds = dict.fromkeys(_KINDS, 0.0)

  def started(self) -> None:
    """Marks the end of the start, when everything is read and restored."""
    self._seconds['start'] = time.perf_counter() - self._began

  @contextlib.contextmanager
  def measure(self, kind: str) -> Iterator[None]:
    """A context whose time counts as `kind`. Must not be nested."""
    begins = time.perf_counter()
    try:
      yield
    finally:
      self._seconds[kind] += time.perf_counter() - begins

  def seconds(self) -> dict[str, float]:
    """{kind: seconds} up to now. The sum is the age of the clock times its share."""
    others = sum(seconds for kind, seconds in self._seconds.items() if kind != 'step')
    known = self._seconds | {'step': time.perf_counter() - self._began - others}
    return {kind: round(self._share * seconds, 3) for kind, seconds in known.items()}


def breakdown(events: Iterable[dict[str, Any]]) -> dict[str, float]:
  """{kind: seconds} over all processes of a run, including LOST.

  Time in which no process ran does not count. Time of a killed process after its last event is unknown and left out.

  Args:
    events: the rows of events.jsonl. A row with a clock's reading accounts for the time up to its step. Malformed rows
      are ignored.
  """
  parts: list[tuple[int, dict[str, float]]] = []  # (step, time since the part before) of the parts that are not lost
  lost, last, before, tail = 0.0, None, {}, 0.0
  for event in filter(_is_well_formed, events):
    if event['event'] in STARTS:
      lost += tail + sum(sum(part.values()) for step, part in parts if step > event['step'])
      parts = [(step, part) for step, part in parts if step <= event['step']]
      before, tail = {}, sum(_seconds(event).values())
    elif now := _seconds(event):
      parts.append((event['step'], {kind: max(now[kind] - before.get(kind, 0.0), 0.0) for kind in now}))
      before, tail = now, 0.0
    elif last is not None and event['event'] != 'begun':  # nothing ran before this event
      tail += max(event['time'] - last, 0.0)
    last = event['time']
  kinds = {kind: sum(part.get(kind, 0.0) for _, part in parts) for kind in _KINDS}
  return kinds | {LOST: lost + tail}


_LABELS = {'step': 'steps', 'start': 'starting', 'compile': 'compiling', 'data': 'waiting for data',
           'evaluate': 'evaluating', 'save': 'saving', LOST: 'lost to restarts'}


def _is_well_formed(event):
  """Whether a row has the fields that `breakdown` reads; logs can come from elsewhere."""
  needs_step = event.get('event') in STARTS or SO_FAR in event
  return (isinstance(event.get('event'), str) and _is_number(event.get('time'))
          and (not needs_step or _is_number(event.get('step'))))


def _seconds(event):
  """{kind: seconds}, the clock's reading in an event; empty if there is none."""
  so_far = event.get(SO_FAR)
  reading = so_far if isinstance(so_far, dict) else {}
  return {kind: float(reading[kind]) for kind in _KINDS if _is_number(reading.get(kind))}


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15


def total(breakdowns: Iterable[dict[str, float]]) -> dict[str, float]:
  """The sum of the breakdowns of several runs."""
  breakdowns = list(breakdowns)
  return {kind: sum(run[kind] for run in breakdowns) for kind in (*_KINDS, LOST)}


def shares(spent: dict[str, float]) -> list[dict[str, Any]]:
  """Rows {what, seconds, share} of a breakdown in a fixed order, for a page; empty if there is no time."""
  age = sum(spent.values())
  return [{'what': _LABELS[kind], 'seconds': spent[kind], 'share': spent[kind] / age}
          for kind in (*_KINDS, LOST)] if age > 0 else []


def describe(spent: dict[str, float]) -> str:
  """A breakdown in words, such as `81% steps, 12% compiling`, largest first; shares below 0.5% are left out."""
  age = sum(spent.values()) or 1.0
  by_size = sorted(((seconds / age, kind) for kind, seconds in spent.items()), reverse=True)
  return ', '.join(f'{share:.0%} {_LABELS[kind]}' for share, kind in by_size if share >= 0.005)


def duration(seconds: float) -> str:
  """A duration in words: 75 -> '1 min 15 s'."""
  seconds = max(round(seconds), 1)
  if seconds < 60:
    return f'{seconds} s'
  if seconds < 5400:
    return f'{seconds // 60} min {seconds % 60:02d} s'
  return f'{seconds / 3600:.1f} h' if seconds < 48 * 3600 else f'{seconds / 86400:.1f} days'
