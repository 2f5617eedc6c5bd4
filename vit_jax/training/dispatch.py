"""Dispatch of steps to the devices: one step per call with its batch, or several steps per call on resident pictures.

Between two calls the host gathers a batch, sends it and starts a program. For a step of a few milliseconds, this is a
large part of the time. If the pictures fit into the devices' memory, they are sent once, and a call is a loop on the
devices. Its operands are the indices of the pictures of each batch, the number of batches and the length of the run. So
one compiled program serves any number of steps and runs of all lengths, such as a trunk and its branches.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models import PureModel
from vit_jax.optimisation import schedule
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import guard
from vit_jax.training import state as state_lib
from vit_jax.training.replay import Inspect
from vit_jax.training.run import Run
from vit_jax.training.step import make_step

_MOST_STEPS = 64  # steps per call, unless the config asks for more
_MOST_BYTES = 2**28  # largest size of resident pictures on each device
# The FLOPs of a small model in about a tenth of a second, as signals and the progress bar wait for the end of a call.
_FLOPS_PER_CALL = {'cpu': 6e9}
_FLOPS_PER_CALL_ELSEWHERE = 5e12


def steps_per_call(run: Run) -> int:
  """The largest number of steps per call: `system.steps_per_call`, or as many as leave the host little to do.

  It is 1 if the pictures cannot be resident on the devices, because the host reads or augments them, they are too
  large, or there are several processes. It is also 1 on several CPU devices, whose collectives wait for one another.
  """
  wanted = run.config.system.steps_per_call
  if not wanted:
    flops = run.flops_per_example_train * run.config.data.batch_size
    wanted = min(int(_FLOPS_PER_CALL.get(run.platform, _FLOPS_PER_CALL_ELSEWHERE) // max(flops, 1)), _MOST_STEPS)
  if wanted <= 1 or jax.process_count() > 1 or (run.platform == 'cpu' and run.mesh.size > 1):
    return 1
  arrays = run.data.arrays('train')
  return 1 if arrays is None or arrays['image'].nbytes > _MOST_BYTES else wanted


class Resident:
  """The resident pictures that one or more runs share, and calls of up to `most` steps of these runs.

  With `packed`, several runs are trained by one program (`training.packed`), and their states, rows and metrics have a
  leading axis.

  Attributes:
    most: the largest number of steps of a call.
    orders: the order of the examples of each run.
  """

  def __init__(self, runs: Sequence[Run], most: int, packed: bool = False):
    self.most, self._runs, self._packed = most, runs, packed
    self.orders = [run.data.train_order(run.config.seed, run.config.train.leave_out) for run in runs]
    self._length = jax.tree.map(np.int32, schedule.length(runs[0].config.schedule, runs[0].steps))
    everywhere = mesh_lib.sharding(runs[0].mesh)
    arrays = runs[0].data.arrays('train')
    self._arrays = {name: jax.device_put(arrays[name], everywhere) for name in runs[0].entries}

  def operands(self, step: int, count: int) -> tuple[Any, ...]:
    """The operands of a call of `count` steps after `step` finished ones, without the state and a teacher's arrays."""
    positions = np.zeros((self.most, len(self._runs), self._runs[0].config.data.batch_size), np.int32)
    for i in range(count):
      positions[i] = [order(step + i) for order in self.orders]
    rows = positions if self._packed else positions[:, 0]
    return self._arrays, rows, np.int32(count), self._length

  def lower(self, train_state: state_lib.TrainState, taught: dict | None = None,
            inspect: Inspect | None = None, model: PureModel | None = None) -> jax.stages.Lowered:
    """Lowers a loop of steps: (state, *operands, *teacher's arrays) -> (state, {name: [most, ..]}).

    The state is donated, unless `inspect` is given, and keeps its sharding. The program is the same for runs that
    differ only in length, cooldown, learning rate, weight decay and seed. `model` is the run's own by default.
    """
    run = self._runs[0]
    model = model or run.model

    def call(train_state, arrays, positions, count, length, *taught):
      step = make_step(model, run.resolved, length, run.teacher, inspect)
      step = jax.vmap(step) if self._packed else step
      names = guard.reported(run.config.train)
      kinds = {name: jax.ShapeDtypeStruct(positions.shape[1:-1], jnp.float32) for name in names}
      kinds |= inspect.shapes() if inspect else {}
      return _steps(step, kinds, train_state, arrays, positions, count, *taught)

    jitted = jax.jit(mesh_lib.traced_on(run.mesh, call), donate_argnums=() if inspect else 0, out_shardings=(
        jax.tree.map(lambda a: a.sharding, train_state), mesh_lib.sharding(run.mesh)))
    return jitted.lower(train_state, *self.operands(0, 0), *([taught] if taught else []))


def _steps(step, kinds, train_state, arrays, positions, count, *taught):
  """Runs `count` steps, whose metrics have the shapes and types of `kinds`.

  Row i of `positions` ([most, B], packed [most, K, B]) has the indices of batch i's examples in `arrays`.
  """
  pick = lambda array, rows: array.at[rows].get(mode='promise_in_bounds')

  def body(i, carry):
    train_state, metrics = carry
    rows = positions[i]
    batch = {name: pick(array, rows) for name, array in arrays.items()} | {'weight': jnp.ones(rows.shape, jnp.float32)}
    if rows.ndim == 1:
      batch = {name: mesh_lib.constrain(array, 'batch') for name, array in batch.items()}
    train_state, new = step(train_state, batch, *taught)
    return train_state, {name: metrics[name].at[i].set(value) for name, value in new.items()}

  zeros = {name: jnp.zeros((len(positions), *kind.shape), kind.dtype) for name, kind in kinds.items()}
  return jax.lax.fori_loop(0, count, body, (train_state, zeros))


def calls(step: int, last: int, most: int, next_due: Callable[[int], int],
          operands: Callable[[int, int], Any]) -> Iterator[tuple[int, Any]]:
  """Yields (number of steps, operands) of each call from `step` to `last`. A call ends where something is due."""
  while step < last:
    count = min(next_due(step) - step, most, last - step)
    yield count, operands(step, count)
    step += count
