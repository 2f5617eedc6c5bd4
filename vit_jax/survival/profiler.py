"""Profiler traces of a few steps, for XProf (`xprof --logdir=WORKDIR/profile`)."""

import os

import jax

PROFILE_AFTER, PROFILE_STEPS = 10, 5  # steps before a trace (warm-up) and in it


class Profiler:
  """Writes a trace of a few steps of a run into `folder`, if it is `wanted`.

  Attributes:
    range: the numbers of finished steps at which the trace begins and ends; (-1, -1) without a trace.
  """

  def __init__(self, folder: os.PathLike, first: int, steps: int, wanted: bool):
    start = first + min(PROFILE_AFTER, max(steps - first - PROFILE_STEPS, 0))
    self._folder, self.range, self._running = folder, (start, start + PROFILE_STEPS) if wanted else (-1, -1), False

  def before(self, step: int) -> None:
    """Starts or ends the trace; called before each step with the number of finished steps."""
    if step == self.range[0]:
      jax.profiler.start_trace(os.fspath(self._folder))
      self._running = True
    elif step == self.range[1]:
      self.close()

  def close(self) -> None:
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
