"""When a checkpoint is due: by steps, by the clock, and where one must be; never so that the loop waits for a disk."""

import time

import jax

from vit_jax.checkpoint import Checkpoints
from vit_jax.parallel import processes
from vit_jax.training.run import Run


class Saving:
  """Says after each step whether to save it now."""

  def __init__(self, run: Run, checkpoints: Checkpoints):
    self._run, self._checkpoints = run, checkpoints
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
    system, alone = self._run.config.system, jax.process_count() == 1
    self._on_its_way = alone and self._on_its_way and self._checkpoints.saving()
    if step in self._run.branch_steps or (system.keep_every and step % system.keep_every == 0):
      return True
    if evaluated and (self._run.config.evaluate.patience or system.save_every is None):
      return True
    self._wanted |= bool(system.save_every) and step % system.save_every == 0
    if system.save_minutes and (alone or step % self._run.log_every == 0):
      self._wanted |= processes.from_writer(lambda: time.monotonic() - self._last >= 60 * system.save_minutes)
    return self._wanted and not self._on_its_way

  def done(self) -> None:
    """A save was started."""
    self._last, self._wanted, self._on_its_way = time.monotonic(), False, True
