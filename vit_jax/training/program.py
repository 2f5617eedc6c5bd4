"""The compiled steps of a run, and which step of a run takes which."""

from collections.abc import Callable
from typing import Any

import jax

from vit_jax import host
from vit_jax.training import dispatch, replay
from vit_jax.training.run import Run
from vit_jax.training.state import TrainState
from vit_jax.training.step import trace


class Program:
  """The compiled training step of a run; every `system.replay_every`-th step is run twice.

  Attributes:
    resident: the pictures and orders of calls of several steps; None: a call is one step and takes a batch.
  """

  def __init__(self, run: Run, train_state: TrainState, tampers: replay.Tampers = replay.SOUND):
    """Compiles the step; `tampers` are for tests (`replay.Replay`)."""
    self._run, most = run, dispatch.steps_per_call(run)
    self._taught = () if run.teacher is None else (run.teacher.arrays(run.mesh),)
    self.resident = dispatch.Resident([run], most) if most > 1 else None
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), train_state)
    compiled = lambda inspect=None: host.compile_step(self._lower(shapes, inspect), run.platform)
    self._once, self._every = compiled(), run.config.system.replay_every
    self._twice = replay.Replay(run.model, run.mesh, compiled, tampers) if self._every else None

  def __call__(self, train_state: TrainState, step: int, operands: tuple[Any, ...]) -> tuple[TrainState, dict]:
    """(state, metrics) after the call that ends at `step`."""
    compiled: Callable = self._twice if replay.replayed(step, self._every) else self._once
    return compiled(train_state, *operands, *self._taught)

  def bounds(self, step: int) -> tuple[int, ...]:
    """Where a call of several steps after `step` must end."""
    return replay.bounds(step, self._every)

  def _lower(self, train_state, inspect) -> jax.stages.Lowered:
    run = self._run
    if self.resident:
      return self.resident.lower(train_state, *self._taught, inspect=inspect)
    return trace(run.model, run.resolved, run.steps, run.mesh, run.teacher, inspect).lower()
