"""The compiled steps of a run, and which step of a run takes which."""

from collections.abc import Callable
from typing import Any

import jax

from vit_jax import host
from vit_jax.layers import stack
from vit_jax.parallel import processes
from vit_jax.training import dispatch, replay
from vit_jax.training.run import Run
from vit_jax.training.state import TrainState
from vit_jax.training.step import trace


class Program:
  """The compiled training step of a run; every `system.replay_every`-th step is run twice.

  Attributes:
    resident: the pictures and orders of calls of several steps; None: a call is one step and takes a batch.
  """

  def __init__(self, run: Run, train_state: TrainState, tampers: replay.Tampers = replay.SOUND,
               note: Callable[[str], None] = lambda text: None):
    """Compiles the step; `tampers` are for tests (`replay.Replay`), `note` is given what a user should know."""
    self._run, most = run, dispatch.steps_per_call(run)
    self._taught = () if run.teacher is None else (run.teacher.arrays(run.mesh),)
    self.resident = dispatch.Resident([run], most) if most > 1 else None
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), train_state)
    compiled = lambda inspect=None: first_that_fits(run, lambda run: self._lower(run, shapes, inspect), note)
    self._once, self._every = compiled(), run.config.system.replay_every
    self._twice = replay.Replay(run.model, run.mesh, compiled, tampers) if self._every else None

  def __call__(self, train_state: TrainState, step: int, operands: tuple[Any, ...]) -> tuple[TrainState, dict]:
    """(state, metrics) after the call that ends at `step`."""
    compiled: Callable = self._twice if replay.replayed(step, self._every) else self._once
    return compiled(train_state, *operands, *self._taught)

  def bounds(self, step: int) -> tuple[int, ...]:
    """Where a call of several steps after `step` must end."""
    return replay.bounds(step, self._every)

  def _lower(self, run, train_state, inspect) -> jax.stages.Lowered:
    if self.resident:
      return self.resident.lower(train_state, *self._taught, inspect=inspect, model=run.model)
    return trace(run.model, run.resolved, run.steps, run.mesh, run.teacher, inspect).lower()


def first_that_fits(run: Run, lower: Callable[[Run], jax.stages.Lowered], note: Callable[[str], None]) -> Any:
  """The compiled step with the least recomputation that fits (`layers.stack.tried`); the last is taken as it is.

  A resumed run finds the same one, and so do all processes. The TPU's compiler refuses a program that does not fit. A
  GPU's does not, so its peak is compared with the memory that JAX may use.
  """
  policies = stack.tried(run.config.system.execution.remat, run.platform)
  for remat, then in zip(policies, (*policies[1:], None), strict=True):
    try:
      compiled = host.compile_step(lower(run.recomputing(remat)), run.platform)
    except jax.errors.JaxRuntimeError as error:
      if then is None or 'RESOURCE_EXHAUSTED' not in str(error):
        raise
    else:
      if then is None or processes.from_writer(lambda compiled=compiled: _fits(compiled, run)):
        return compiled
    note(f'the step does not fit into the memory with remat={remat}: compiling it with remat={then}')


def _fits(compiled, run):
  free = (run.mesh.devices.flat[0].memory_stats() or {}).get('bytes_limit')
  return not free or compiled.memory_analysis().peak_memory_in_bytes <= free
