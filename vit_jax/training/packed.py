"""Packed training: several runs are trained by one program, `jax.vmap` of the step over their states.

The runs may differ only in learning rate, weight decay and seed. Each has a folder, a log and checkpoints as it would
have alone, so that each can be resumed alone. Its numbers are those of the run alone up to rounding (1e-5 of the loss
over 20 steps), as the program of a group adds in another order; training amplifies the last bit. A group that is
stopped and goes on as the same group ends in the same bits. With another group, such as one that lacks the runs that
have finished, it ends in others.
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
  """Whether a run can be packed: its length is known in advance, it has no teacher and no pretrained weights, and no
  step is run twice or undone."""
  alone = config.evaluate.patience or config.system.replay_every or config.train.on_spike == 'rewind'
  return not alone and config.distill.teacher is None and config.pretrained.path is None


@dataclasses.dataclass
class Member:
  """One of the runs; `loop` and `state` are set once its folder is open."""
  run: Run
  workdir: os.PathLike
  display: Display
  trunk: os.PathLike | None = None
  loop: Loop | None = None
  state: TrainState | None = None
  failed: str | None = None  # why it was dropped; it can be tried alone


def train(members: Sequence[Member], clock: goodput.Clock) -> None:
  """Trains all members to their end, resuming each. A member that cannot continue is dropped, with `failed` set.

  Members at the same step are trained together, one such group after the other.

  Args:
    members: the runs, which must share one program on one device.
    clock: a clock that was started with the process.

  Raises:
    Stopped: the runs were asked to stop and all have saved; the same call resumes them.
    UserError: the runs do not share one program on one device, or for the reasons of `loop.train`.
  """
  first = members[0].run
  for member in members:
    if not can_be_packed(member.run.config) or program(member.run.config) != program(first.config) or (
        member.run.mesh.size > 1 or member.run.branch_steps != first.branch_steps):
      raise UserError(f'{os.fspath(member.workdir)}: cannot be trained together with {os.fspath(members[0].workdir)}: '
                      'such runs may differ only in learning rate, weight decay and seed, and run on one device')
  checkpoint_size = lambda: state.size(first.model, first.config, first.mesh)
  with full_disk.explained(members[0].workdir, checkpoint_size), contextlib.ExitStack() as stack:
    stop = stack.enter_context(Stop())
    for m in members:
      m.loop, m.state = loop_lib.begin(stack, m.run, m.workdir, m.display, stop, clock, m.trunk)
    at_step = lambda m: int(m.state.step)
    for _, group in itertools.groupby(sorted(members, key=at_step), at_step):
      _train_together(list(group))


def _train_together(members):
  """Trains members that are at the same step to the end."""
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
        packed, metrics = train(packed, *operands)
        step += count
        for i, m in enumerate(members):
          if m.failed is None:
            with _dropped_on_error(m):
              m.loop.observe(step, {name: _Column(value, i) for name, value in metrics.items()}, count)
        packed = _after(members, packed, step)
        if all(m.failed for m in members):
          return
  for m in members:
    if m.failed is None:
      m.loop.save_last(m.state, step)
      m.display.summary(m.loop.finish(m.state), m.run.objective, m.workdir)


def _compile(members, packed, step, stack):
  """A compiled function (states, *operands) -> (states, metrics), and the (number of steps, operands) of each call."""
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
  """A jitted function (states, batches) -> (states, metrics), with one entry for each member."""
  step = mesh_lib.traced_on(run.mesh, make_step(run.model, run.resolved, run.steps))
  stacked = lambda batches: jax.tree.map(lambda *rows: jnp.stack(rows), *batches)
  return jax.jit(lambda states, batches: jax.vmap(step)(states, stacked(batches)), donate_argnums=0)


def _after(members, packed, step):
  """Does what is due after a step, for each member from its own state; returns the states packed again."""
  going = [m for m in members if m.failed is None]
  if not any(m.loop.is_due(step) for m in going) and step < members[0].run.steps:
    return packed
  states = [jax.tree.map(lambda a, i=i: a[i], packed) for i in range(len(members))]
  stopped = None
  for m, own in zip(members, states, strict=True):
    m.state = own
    if m.failed is None:
      with _dropped_on_error(m):
        try:
          m.state = m.loop.after(own, step)
        except Stopped as error:
          stopped = error
  if stopped:
    raise stopped
  return _stack([m.state for m in members])


@contextlib.contextmanager
def _dropped_on_error(member):
  """Drops a member on an error, such as a loss that is not finite, so that the others continue."""
  try:
    yield
  except UserError as error:
    member.failed = str(error)
    member.display.note(f'dropped from the runs that it was trained with: {error}')


def _stack(states: Sequence[TrainState]) -> TrainState:
  return jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)


@dataclasses.dataclass(frozen=True)
class _Column:
  """The values of one member in an array [K] or [steps, K] that is still being computed."""
  array: Any
  index: int

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return np.asarray(self.array, dtype)[..., self.index]
