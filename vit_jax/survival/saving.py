"""When a checkpoint is due: at given steps, at intervals and by the clock. Saves by interval never block the loop."""

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
    at: steps that are saved and kept forever, as branches start there.
    keep_every: multiples of this number of steps are saved and kept forever.
    save_every: steps between saves; None: a save at each evaluation.
    save_minutes: largest time between saves.
    log_every: steps between rows of the log.
    evaluations: whether each evaluated step is saved whatever `save_every` is, as it may be the best.
  """
  at: Collection[int]
  keep_every: int | None
  save_every: int | None
  save_minutes: float | None
  log_every: int
  evaluations: bool


class Saving:
  """Decides after each step whether to save it."""

  def __init__(self, when: Due, checkpoints: Checkpoints):
    self._when, self._checkpoints = when, checkpoints
    self._last, self._wanted, self._on_its_way = time.monotonic(), False, False

  def due(self, step: int, evaluated: bool) -> bool:
    """Whether to save after `step`.

    Branch steps, multiples of `keep_every` and steps that may be the best are saved at exactly that step. A save by
    interval is postponed until the previous one is on disk, so that the loop does not wait. Several processes must save
    the same step although their clocks and disks differ. So they do not postpone, and the writer's clock decides when a
    row is logged.

    Args:
      step: the number of finished steps.
      evaluated: whether this step was due to be evaluated.

    Raises:
      The error of a failed save, soon after it happened rather than at the next save.
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
    """Notes that a save has been started."""
    self._last, self._wanted, self._on_its_way = time.monotonic(), False, True
