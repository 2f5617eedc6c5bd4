"""Where the time of a run went: steps, compiling, waiting for data, saving, evaluating, starting, and work done twice.

A process keeps a `Clock`; what it reads goes into events.jsonl with each save. From these, `spent` tells the whole
story over all restarts: the time after the checkpoint from which the next process went on was spent in vain.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

STARTS = ('start', 'resume', 'branch')  # the events that begin a process
_KINDS = ('step', 'start', 'compile', 'data', 'evaluate', 'save')
LOST = 'lost'
SO_FAR = 'seconds_so_far'  # the field of an event that holds what a clock read


class Clock:
  """Seconds of one process by what it did; whatever is not measured is steps, once these have begun."""

  def __init__(self, share: float = 1.0):
    """`share`: the part of the process's time that counts for one run, where it trains several at once."""
    self._share = share
    self._began = time.perf_counter()
    self._seconds = dict.fromkeys(_KINDS, 0.0)

  def started(self) -> None:
    """Everything is read and restored: the time up to now was the start."""
    self._seconds['start'] = time.perf_counter() - self._began

  @contextlib.contextmanager
  def measure(self, kind: str) -> Iterator[None]:
    """Counts the time inside as that of `kind`; not to be nested."""
    begins = time.perf_counter()
    try:
      yield
    finally:
      self._seconds[kind] += time.perf_counter() - begins

  def seconds(self) -> dict[str, float]:
    """{kind: seconds} up to now; together they are the age of the clock, or its share."""
    others = sum(seconds for kind, seconds in self._seconds.items() if kind != 'step')
    known = self._seconds | {'step': time.perf_counter() - self._began - others}
    return {kind: round(self._share * seconds, 3) for kind, seconds in known.items()}


def spent(events: Iterable[dict[str, Any]]) -> dict[str, float]:
  """{kind: seconds} over all processes of a run, those of `lost` among them.

  Time in which no process ran does not count. What a killed process did after its last event is not known, and left
  out.

  Args:
    events: the rows of events.jsonl. Those with a clock's reading say what led up to that step. Rows that no run writes
      are left out.
  """
  parts: list[tuple[int, dict[str, float]]] = []  # (step, what was spent since the part before), as far as it counts
  lost, last, before, tail = 0.0, None, {}, 0.0
  for event in filter(_as_written, events):
    if event['event'] in STARTS:
      lost += tail + sum(sum(part.values()) for step, part in parts if step > event['step'])
      parts = [(step, part) for step, part in parts if step <= event['step']]
      before, tail = {}, sum(_seconds(event).values())
    elif now := _seconds(event):
      parts.append((event['step'], {kind: max(now[kind] - before.get(kind, 0.0), 0.0) for kind in now}))
      before, tail = now, 0.0
    elif last is not None and event['event'] != 'begun':  # nothing ran before that
      tail += max(event['time'] - last, 0.0)
    last = event['time']
  kinds = {kind: sum(part.get(kind, 0.0) for _, part in parts) for kind in _KINDS}
  return kinds | {LOST: lost + tail}


_WORDS = {'step': 'steps', 'start': 'starting', 'compile': 'compiling', 'data': 'waiting for data',
          'evaluate': 'evaluating', 'save': 'saving', LOST: 'lost to restarts'}


def _as_written(event):
  """Whether a row has what is counted on: logs come from elsewhere too."""
  step_counts = event.get('event') in STARTS or SO_FAR in event
  return (isinstance(event.get('event'), str) and _is_number(event.get('time'))
          and (not step_counts or _is_number(event.get('step'))))


def _seconds(event):
  """{kind: seconds} that a clock read; empty where there is none."""
  so_far = event.get(SO_FAR)
  told = so_far if isinstance(so_far, dict) else {}
  return {kind: float(told[kind]) for kind in _KINDS if _is_number(told.get(kind))}


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15


def total(of_runs: Iterable[dict[str, float]]) -> dict[str, float]:
  """What `spent` tells of several runs, together."""
  of_runs = list(of_runs)
  return {kind: sum(run[kind] for run in of_runs) for kind in (*_KINDS, LOST)}


def shares(spent: dict[str, float]) -> list[dict[str, Any]]:
  """[{what, seconds, share}] in a fixed order, for a page; empty where no time is known."""
  age = sum(spent.values())
  return [{'what': _WORDS[kind], 'seconds': spent[kind], 'share': spent[kind] / age}
          for kind in (*_KINDS, LOST)] if age > 0 else []


def words(spent: dict[str, float]) -> str:
  """`81% steps, 12% compiling, ...` of what took at least half a percent, the largest first."""
  age = sum(spent.values()) or 1.0
  by_size = sorted(((seconds / age, kind) for kind, seconds in spent.items()), reverse=True)
  return ', '.join(f'{share:.0%} {_WORDS[kind]}' for share, kind in by_size if share >= 0.005)


def duration(seconds: float) -> str:
  """75 -> '1 min 15 s'."""
  seconds = max(round(seconds), 1)
  if seconds < 60:
    return f'{seconds} s'
  if seconds < 5400:
    return f'{seconds // 60} min {seconds % 60:02d} s'
  return f'{seconds / 3600:.1f} h' if seconds < 48 * 3600 else f'{seconds / 86400:.1f} days'
