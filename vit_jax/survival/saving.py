"""When a checkpoint is due: by steps, by the clock, and where one must be; never so that the loop waits for a disk."""

import dataclasses
import time
from collections.abc import Collection

import jax

from vit_jax.checkpoint import Checkpoints
from vit_jax.parallel import processes


@dataclasses.dataclass(frozen=True)
class Due:
  """When a run saves.

  Attributes:
    at: steps that are saved and kept for good (where branches begin).
    keep_every: so are the multiples of this many steps.
    save_every: steps between saves; None: each evaluation is saved.
    save_minutes: a save at the latest so long after the last.
    log_every: steps between rows of the log.
    evaluations: whether each evaluation is saved whatever `save_every` is, as it may be the best.
  """
  at: Collection[int]
  keep_every: int | None
  save_every: int | None
  save_minutes: float | None
  log_every: int
  evaluations: bool


class Saving:
  """Says after each step whether to save it now."""

  def __init__(self, when: Due, checkpoints: Checkpoints):
    self._when, self._checkpoints = when, checkpoints
    self._last, self._wanted, self._on_its_way = time.monotonic(), False, False

  def due(self, step: int, evaluated: bool) -> bool:
    """Whether to save after `step`.

    Branch steps, multiples of `keep_every` and whatever may be the best are saved at their very step. What is due by an
    interval waits for the save before it to be on disk, so that the loop does not. Many processes must save the same
    step, though their clocks and disks differ: they do not wait, and the writer's clock is asked when a row is logged.

    Args:
      evaluated: whether this step was due to be evaluated.

    Raises:
      an error of the save before, soon after it happened rather than at the next one.
    """
    when, alone = self._when, jax.process_count() == 1
    self._on_its_way = alone and self._on_its_way and self._checkpoints.saving()
    if step in when.at or (when.keep_every and step % when.keep_every == 0):
      return True
    if evaluated and (when.evaluations or when.save_every is None):
      return True
    self._wanted |= bool(when.save_every) and step % when.save_every == 0
    if when.save_minutes and (alone or step % when.log_every == 0):
      self._wanted |= processes.from_writer(lambda: time.monotonic() - self._last >= 60 * when.save_minutes)
    return self._wanted and not self._on_its_way

  def done(self) -> None:
    """A save was started."""
    self._last, self._wanted, self._on_its_way = time.monotonic(), False, True
