"""Steps that are run twice, to find devices that compute wrongly without an error.

Every `system.replay_every`-th step is run twice from the same state and batch by one program. Compared are loss,
gradient norm and a digest of each gradient as every device has it, and digests of the part of the state after the step
that each device holds. If they differ, a device was wrong once. The run then ends, and nothing of this step is kept.
The state before the step stays until then, so such a step needs the memory of two states.

The program is the training step with the digests of gradients as further results. Digests leave open how a gradient is
split: a constraint would move the sums of other values, and their last bits. So the state after the step is that of a
run without replay, bit for bit. A wrong value soon reaches all devices, by the gradients' sum or norm. If what differs
does not tell the device, the step is run a few more times with digests of the part of each gradient that each device
holds, as a faulty device is often wrong again.
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
from vit_jax.parallel import processes, rules
from vit_jax.parallel.mesh import LogicalMesh
from vit_jax.survival import sound
from vit_jax.training import state
from vit_jax.training.state import TrainState

_TRIES = 3  # runs that look for the device that is wrong
Tamper = Callable[[dict, jax.Array], dict]  # (gradients, step) -> gradients, as a faulty device would have made them
# Of tests: what a faulty device makes of gradients, and what a sound one makes of them. The sound one must have the
# operations of the faulty one, because with other operations a compiler may regroup sums.
Tampers = tuple[Tamper | None, Tamper | None]
SOUND: Tampers = (None, None)


@dataclasses.dataclass(frozen=True)
class Inspect:
  """`(gradients, step) -> (gradients, {'digests': uint32})`, to be traced as a part of a training step.

  Attributes:
    model: the model.
    mesh: where the digests are [devices, gradients], and split gradients as parameters; None: [gradients].
    tamper: of tests: makes a fault.
  """
  model: PureModel
  mesh: LogicalMesh | None = None
  tamper: Tamper | None = None

  def __call__(self, gradients: dict, step: jax.Array) -> tuple[dict, dict[str, jax.Array]]:
    gradients = self.tamper(gradients, step) if self.tamper else gradients
    leaves = jax.tree.leaves(gradients)
    if self.mesh is None:
      return gradients, {'digests': jnp.stack([digest.total(leaf) for leaf in leaves])}
    axes = jax.tree.leaves(self.model.param_axes(), is_leaf=lambda axes: isinstance(axes, tuple))
    return gradients, {'digests': digest.per_device(leaves, [rules.spec(*names) for names in axes])}

  def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
    devices = () if self.mesh is None else (self.mesh.size,)
    return {'digests': jax.ShapeDtypeStruct((*devices, len(self.names())), jnp.uint32)}

  def names(self) -> list[str]:
    """The paths of the gradients, in the order of the digests."""
    leaves = jax.tree_util.tree_leaves_with_path(self.model.param_shapes())
    return [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in leaves]


@dataclasses.dataclass
class _Seen:
  """What is compared of a step."""
  metrics: dict[str, np.ndarray]  # bits, uint32 [devices of this process, ..]
  after: np.ndarray  # digests of the state, uint32 [devices, arrays]


class Replay:
  """A compiled training step that is run twice."""

  def __init__(self, model: PureModel, mesh: LogicalMesh, compiled: Callable[[Inspect], Callable],
               tampers: Tampers = SOUND):
    """Compiles the step.

    Args:
      model: the model.
      mesh: the mesh.
      compiled: compiles a step with an `Inspect`: (state, *operands) -> (state, metrics).
      tampers: of tests: a fault in the first of the two runs, and in the first of those that look for the device.
    """
    self._model, self._mesh, self._compiled, self._tampers = model, mesh, compiled, tuple(dict.fromkeys(tampers))
    self._names, self._search = Inspect(model).names(), None
    programs = [compiled(Inspect(model, tamper=tamper)) for tamper in self._tampers]
    self._other, self._step = programs[0], programs[-1]

  def __call__(self, train_state: TrainState, *operands: Any) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after a step, and its metrics.

    Raises:
      UserError: the two runs of the step differ; the message names the arrays and the devices. All processes raise it.
    """
    first = _seen(*host.in_turn(self._other(train_state, *operands)))  # frees its state before the second run
    after, metrics = host.in_turn(self._step(train_state, *operands))
    said = processes.all_say(self._difference(first, _seen(after, metrics)))
    if any(said):
      del after
      what, where = '; '.join(dict.fromkeys(filter(None, said))), self._where(train_state, operands)
      raise UserError(f'step {int(train_state.step) + 1} was run twice from the same state and batch, and the results '
                      f'differ: {what} ({where}). A device computes wrongly. Nothing of this step was kept')
    return after, {name: value for name, value in metrics.items() if name != 'digests'}

  def _where(self, train_state, operands):
    """Runs the step again, and says which devices differ."""
    if self._mesh.size == 1:
      return f'on {sound.describe(self._mesh.devices.flat[0])}'
    self._search = self._search or [self._compiled(Inspect(self._model, self._mesh, tamper))
                                    for tamper in self._tampers]
    runs = [self._search[min(i, len(self._search) - 1)] for i in range(_TRIES)]
    digests = [_of_one_step(2, np.asarray(host.in_turn(run(train_state, *operands)[1])['digests'])) for run in runs]
    wrong = np.any([found != digests[-1] for found in digests], axis=(0, 2))
    devices = [sound.describe(device) for device, some in zip(self._mesh.devices.flat, wrong, strict=True) if some]
    if not devices or len(devices) == self._mesh.size:
      return f'which device is wrong is not known; it was looked for in {_TRIES} more runs of the step'
    return f'on {sound.listed(devices)}, as {_TRIES} more runs of the step show'

  def _difference(self, first, second):
    """What differs, in words; empty if nothing does."""
    differs = {name: bits != second.metrics[name] for name, bits in first.metrics.items()}
    if not any(wrong.any() for wrong in differs.values()) and (first.after == second.after).all():
      return ''
    names = [name for name, some in zip(self._names, differs['digests'].any(0), strict=True) if some]
    what = [f'{name} {_number(first, name)} and {_number(second, name)}' for name in ('loss', 'grad_norm')
            if differs[name].any()] + ([f'gradients of {sound.listed(names)}'] if names else [])
    return ', '.join(what or ['the update'])


def _seen(after, metrics):
  """Reads from each device what it has computed: values that count as copies can differ."""
  shards = {name: value.addressable_shards for name, value in metrics.items()}
  bits = {name: np.stack([_of_one_step(name == 'digests', np.asarray(shard.data)) for shard in parts]).view(np.uint32)
          for name, parts in shards.items()}
  plain = state.to_plain(after)
  return _Seen(bits, sound.per_device({name: plain[name] for name in sound.CHECKED}))


def _of_one_step(ndim, value):
  """A value of a step, which has `ndim` axes, also from a call of several steps, where it is the first."""
  return value[0] if value.ndim > ndim else value


def _number(seen, name):
  return ', '.join(str(value) for value in dict.fromkeys(seen.metrics[name].view(np.float32).reshape(-1).tolist()))


def replayed(step: int, every: int) -> bool:
  """Whether the call that ends at `step` is a step that is run twice; `every` 0: none is."""
  return bool(every) and step % every == 0


def bounds(step: int, every: int) -> tuple[int, ...]:
  """Where calls of several steps must end, so that the first step after `step` that is run twice is one call."""
  if not every:
    return ()
  last = (step // every + 1) * every
  return last - 1, last
