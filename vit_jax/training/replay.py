"""Steps that are run twice, to find devices that compute wrongly without an error.

Every `system.replay_every`-th step is run twice from the same state and batch by one program, which reports a digest of
each gradient on each device. If loss, gradient norm or a digest differ, a device was wrong once. The run then ends, and
nothing of this step is kept. The state of a step is not overwritten by the first of its two runs, so such a step needs
the memory of two states. The program is the training step with digests as further results, so the state after it is
that of a run without replay, bit for bit.

Digests are taken after the gradients of the devices have been summed. A fault on one device before the sum reaches all
of them, and the message then says that the device is not known.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import digest, host
from vit_jax.errors import UserError
from vit_jax.models import PureModel
from vit_jax.parallel import rules
from vit_jax.parallel.mesh import LogicalMesh
from vit_jax.survival import sound
from vit_jax.training.state import TrainState

Tamper = Callable[[dict, jax.Array], dict]  # (gradients, step) -> gradients, as a faulty device would have made them


@dataclasses.dataclass(frozen=True)
class Inspect:
  """`(gradients, step) -> {'digests': uint32 [devices, gradients]}`, to be traced as a part of a training step.

  Tests set `tamper`. It changes what is inspected and not what the optimizer is given.
  """
  model: PureModel
  tamper: Tamper | None = None

  def __call__(self, gradients: dict, step: jax.Array) -> dict[str, jax.Array]:
    gradients = self.tamper(gradients, step) if self.tamper else gradients
    axes = jax.tree.leaves(self.model.param_axes(), is_leaf=lambda axes: isinstance(axes, tuple))
    return {'digests': digest.per_device(jax.tree.leaves(gradients), [rules.spec(*names) for names in axes])}

  def shapes(self, mesh: LogicalMesh) -> dict[str, jax.ShapeDtypeStruct]:
    return {'digests': jax.ShapeDtypeStruct((mesh.size, len(self.names())), jnp.uint32)}

  def names(self) -> list[str]:
    """The paths of the gradients, in the order of the digests."""
    leaves = jax.tree_util.tree_leaves_with_path(self.model.param_shapes())
    return [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in leaves]


class Replay:
  """A compiled training step that is run twice."""

  def __init__(self, model: PureModel, mesh: LogicalMesh, compiled: Callable[[Inspect], Callable],
               tamper: Tamper | None = None):
    """Compiles the step.

    Args:
      model: the model.
      mesh: the mesh.
      compiled: compiles a step that reports what an `Inspect` does: (state, *operands) -> (state, metrics).
      tamper: of tests: changes the gradients of one of the two runs.
    """
    inspect = Inspect(model)
    self._names, self._devices = inspect.names(), list(mesh.devices.flat)
    self._step = compiled(inspect)
    self._other = compiled(Inspect(model, tamper)) if tamper else self._step

  def __call__(self, train_state: TrainState, *operands: Any) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after a step, and its metrics.

    Raises:
      UserError: the two runs of the step differ; the message names the gradients and the devices.
    """
    first = self._metrics(self._other(train_state, *operands)[1])  # its state is freed before the second run starts
    after, metrics = host.in_turn(self._step(train_state, *operands))
    second = self._metrics(metrics)
    if any((first[name] != second[name]).any() for name in first):
      raise UserError(f'step {int(train_state.step) + 1} was run twice from the same state and batch, and the results '
                      f'differ: {self._difference(first, second)}. A device computes wrongly. Nothing of this step was '
                      'kept')
    return after, {name: value for name, value in metrics.items() if name != 'digests'}

  def _metrics(self, metrics):
    """The bits of the metrics of one step, on the host."""
    words = {name: np.asarray(value) for name, value in metrics.items()}
    first = {name: value[0] if value.ndim > (2 if name == 'digests' else 0) else value for name, value in words.items()}
    return {name: np.atleast_1d(value).view(np.uint32) for name, value in first.items()}

  def _difference(self, first, second):
    values = [f'{name} {_number(first[name])} and {_number(second[name])}' for name in ('loss', 'grad_norm')
              if first[name] != second[name]]
    wrong = first['digests'] != second['digests']  # [devices, gradients]
    names = [name for name, some in zip(self._names, wrong.any(0), strict=True) if some]
    devices = [sound.describe(device) for device, some in zip(self._devices, wrong.any(1), strict=True) if some]
    where = f'on {sound.listed(devices)}' if len(devices) < len(wrong) or len(wrong) == 1 else (
        f'on all {len(wrong)} devices, as they are summed over them, so which one is wrong is not known')
    return '; '.join(values + ([f'gradients of {sound.listed(names)} {where}'] if names else []))


def replayed(step: int, every: int) -> bool:
  """Whether the call that ends at `step` is a step that is run twice; `every` 0: none is."""
  return bool(every) and step % every == 0


def bounds(step: int, every: int) -> tuple[int, ...]:
  """Where calls of several steps must end, so that the first step after `step` that is run twice is one call."""
  if not every:
    return ()
  last = (step // every + 1) * every
  return last - 1, last


def _number(bits):
  return float(bits.view(np.float32)[0])
