"""Runs that are one program, trained together: a step of all of them is one call, `jax.vmap` over their states.

They differ in learning rate, weight decay and seed alone. Each has the folder, the log and the checkpoints that it
would have alone, so that any of them can go on alone.
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import goodput, host
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.survival import full_disk
from vit_jax.survival.stop import Stop, Stopped
from vit_jax.training import dispatch, state
from vit_jax.training import loop as loop_lib
from vit_jax.training.config import RunConfig, program
from vit_jax.training.display import Display
from vit_jax.training.loop import Loop
from vit_jax.training.run import Run
from vit_jax.training.state import TrainState
from vit_jax.training.step import make_step


def can_be_packed(config: RunConfig) -> bool:
  """Whether a run may share its steps: it ends at a step that is known, and starts from its seed, untaught."""
  return not config.evaluate.patience and config.distill.teacher is None and config.pretrained.path is None


@dataclasses.dataclass
class Member:
  """One of the runs; `loop` and `state` are there once its folder is open."""
  run: Run
  workdir: os.PathLike
  display: Display
  trunk: os.PathLike | None = None
  loop: Loop | None = None
  state: TrainState | None = None
  failed: str | None = None  # why it was left behind: it may be tried alone


def train(members: Sequence[Member], clock: goodput.Clock) -> None:
  """Trains all members to their end, from where each stands; what cannot go on is left behind, `failed`.

  Those that stand at the same step are trained together, the others one group after the other.

  Raises:
    Stopped: told to stop; all have saved. The same call goes on.
    UserError: the runs are not one program on one device, or as `loop.train`.
  """
  first = members[0].run
  for member in members:
    if not can_be_packed(member.run.config) or program(member.run.config) != program(first.config) or (
        member.run.mesh.size > 1 or member.run.branch_steps != first.branch_steps):
      raise UserError(f'{os.fspath(member.workdir)}: it cannot be trained together with '
                      f'{os.fspath(members[0].workdir)}: of such runs only the learning rate, the weight decay and the '
                      'seed differ, on one device')
  checkpoint_size = lambda: state.size(first.model, first.config, first.mesh)
  with full_disk.told_when_full(members[0].workdir, checkpoint_size), contextlib.ExitStack() as stack:
    stop = stack.enter_context(Stop())
    for m in members:
      m.loop, m.state = loop_lib.begin(stack, m.run, m.workdir, m.display, stop, clock, m.trunk)
    standing = lambda m: int(m.state.step)
    for _, group in itertools.groupby(sorted(members, key=standing), standing):
      _train_together(list(group))


def _train_together(members):
  """From one step, at which all of them stand, to the end."""
  step, first = int(members[0].state.step), members[0].loop
  for m in members:
    m.loop.catch_up(m.state)
  if step < first.run.steps:
    packed = _stack([m.state for m in members])
    with contextlib.ExitStack() as stack:
      for m in members:
        m.display.start(step, m.run.steps)
      train, calls = _compile(members, packed, step, stack)
      for count, operands in calls:
        packed, told = train(packed, *operands)
        step += count
        for i, m in enumerate(members):
          if m.failed is None:
            with _left_behind(m):
              m.loop.observe(step, {name: _Column(value, i) for name, value in told.items()}, count)
        packed = _after(members, packed, step)
        if all(m.failed for m in members):
          return
  for m in members:
    if m.failed is None:
      m.loop.save_last(m.state, step)
      m.display.summary(m.loop.finish(m.state), m.workdir)


def _compile(members, packed, step, stack):
  """((states, *operands) -> (states, numbers), the (number of steps, operands) of each call), as `Loop` has it."""
  runs, loop, most = [m.run for m in members], members[0].loop, dispatch.steps_per_call(members[0].run)
  if most > 1:
    with loop.compiling():
      resident = dispatch.Resident(runs, most, packed=True)
      train = host.compile_step(resident.lower(packed), loop.run.platform)
    return train, dispatch.calls(step, loop.run.steps, most, loop.next_due, loop.timed(resident))
  feeds = [stack.enter_context(contextlib.closing(m.loop.batches(step))) for m in members]
  batches = zip(*feeds)
  first = next(batches)
  with loop.compiling():
    train = host.compile_step(_together(loop.run).lower(packed, first), loop.run.platform)
  return train, ((1, (each,)) for each in itertools.chain([first], batches))


def _together(run):
  """(states, their batches) -> (states, what each tells), one entry for each member."""
  step = mesh_lib.traced_on(run.mesh, make_step(run.model, run.resolved, run.steps))
  stacked = lambda batches: jax.tree.map(lambda *rows: jnp.stack(rows), *batches)
  return jax.jit(lambda states, batches: jax.vmap(step)(states, stacked(batches)), donate_argnums=0)


def _after(members, packed, step):
  """What is due after a step is due for all: logs, evaluations and saves of each, from its own state."""
  going = [m for m in members if m.failed is None]
  if not any(m.loop.is_due(step) for m in going) and step < members[0].run.steps:
    return packed
  states = [jax.tree.map(lambda a, i=i: a[i], packed) for i in range(len(members))]
  stopped = None
  for m, own in zip(members, states, strict=True):
    m.state = own
    if m.failed is None:
      with _left_behind(m):
        try:
          m.state = m.loop.after(own, step)
        except Stopped as told:
          stopped = told
  if stopped:
    raise stopped
  return _stack([m.state for m in members])


@contextlib.contextmanager
def _left_behind(member):
  """One whose numbers are not finite, say, does not end the others."""
  try:
    yield
  except UserError as error:
    member.failed = str(error)
    member.display.note(f'left behind by the runs that it was trained with: {error}')


def _stack(states: Sequence[TrainState]) -> TrainState:
  return jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)


@dataclasses.dataclass(frozen=True)
class _Column:
  """The numbers of one member in an array [K] or [steps, K] that is still being computed."""
  array: Any
  index: int

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return np.asarray(self.array, dtype)[..., self.index]
