"""Steps that the devices have been given and the host has not looked at yet, and what it reports of them."""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from vit_jax.errors import UserError
from vit_jax.survival import health
from vit_jax.training.display import Display
from vit_jax.training.run import Run
from vit_jax.training.run_folder import RunFolder

AHEAD = 2  # number of calls that the host may run ahead of the devices
MOST_NAMED = 5  # number of events of a kind that are printed; events.jsonl has them all


class InFlight:
  """The calls of a run that are not yet awaited, in order."""

  def __init__(self, run: Run, folder: RunFolder, display: Display):
    self._run, self._folder, self._display = run, folder, display
    self._watch = health.Watch(run.config.train)
    self._calls = collections.deque()  # (last step, number of steps, metrics)
    self._event_counts = collections.Counter()  # {kind of event: how many so far}

  def add(self, step: int, metrics: dict[str, Any], count: int = 1) -> None:
    """Queues the metrics of a call of `count` steps that ends at `step`."""
    self._calls.append((step, count, metrics))

  def wait(self, ahead: int = 0) -> None:
    """Waits until at most `ahead` calls are in flight.

    Raises:
      UserError: a loss or gradient is not finite, and the run must end.
      health.Spike: a loss or gradient norm jumps, and the run must go back.
    """
    while len(self._calls) > ahead:
      last, count, metrics = self._calls.popleft()
      metrics = {name: np.asarray(value).reshape(-1)[:count] for name, value in metrics.items()}
      for i, step in enumerate(range(last - count + 1, last + 1)):
        self._observe(step, {name: float(values[i]) for name, values in metrics.items()})
      self._display.step(last, float(metrics['loss'][-1]))

  def drop(self) -> None:
    """Waits for the calls and forgets them."""
    jax.block_until_ready([metrics for _, _, metrics in self._calls])
    self._calls.clear()

  def record_event(self, event: dict[str, Any], words: str) -> None:
    """Records an event with a running count, and prints the first few of each kind."""
    self._event_counts[event['event']] += 1
    self._folder.events.append({**event, 'count': self._event_counts[event['event']]})
    if self._event_counts[event['event']] <= MOST_NAMED:
      self._display.note(words)

  @contextlib.contextmanager
  def explained(self, may_diverge: bool = False) -> Iterator[None]:
    """Adds the last good checkpoint to an error, and what may help if the run may have diverged."""
    try:
      yield
    except UserError as error:
      saved = self._folder.saved_step
      good = f'the last good checkpoint is at step {saved}' if saved else 'no checkpoint has been saved yet'
      rate = self._run.config.optimizer.learning_rate
      help = f'. A lower optimizer.learning_rate (now {rate}) or a longer schedule.warmup_steps may help'
      raise UserError(f'{error}; {good}{help if may_diverge else ""}') from error

  def _observe(self, step, metrics):
    with self.explained(may_diverge=True):
      events = self._watch.observe(step, **metrics)
    for event in events:
      self.record_event(event, health.words(event))
