"""How many micro-batches a step takes its batch in, where `system.microbatches=0` leaves that to the devices.

Micro-batches save no work. They keep activations near the cores from one operation to the next, and they cost adding up
the gradients. The constants were measured (experiments/speed).
"""

import jax
import jax.numpy as jnp

from vit_jax.cost.hardware import Chip
from vit_jax.layers import stack
from vit_jax.models import PureModel
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import LogicalMesh
from vit_jax.parallel.rules import mesh_axes
from vit_jax.training.config import RunConfig

USES_A_SLICE = 600  # of a parameter, in a micro-batch on a CPU
# On a TPU, of a residual stream that mostly stays in the memory near the cores, of which a v5e and a v6e have 128 MiB.
NEAR_BYTES = 20e6
# On a TPU, what a ViT's step then computes for each byte that it moves, per channel. Where a chip could compute more,
# the stream is to be half as large: the hidden units of the MLP, which are four times as many, then stay near too.
FLOPS_A_BYTE = 0.5
# On a TPU, tokens of a micro-batch per channel: with fewer, adding up gradients moves more than staying near saves.
TOKENS_A_CHANNEL = 8


def chosen(config: RunConfig, model: PureModel, mesh: LogicalMesh, platform: str, chip: Chip | None,
           uses: float | None = None) -> tuple[int, str]:
  """(the number, why) for a run whose config leaves it open.

  Args:
    config: the run's.
    model: its model.
    mesh: its mesh, which may be abstract.
    platform: 'cpu', 'gpu' or 'tpu'.
    chip: an accelerator's; None: not known.
    uses: on a CPU, how often an example's forward pass uses a parameter, on average: in a ViT, by each token.
  """
  if model.stats_shapes():
    return 1, 'batch norm takes its statistics from a micro-batch'
  if model.objective.whole_batch:
    return 1, 'the loss is of the whole batch'
  rows = config.data.batch_size // mesh_lib.batch_shards(mesh)
  if platform == 'cpu':
    # The activations of a large batch leave the caches between one operation and the next, so slices are as small as
    # adding up their gradients allows.
    number = max(n for n in _divisors(rows) if n == 1 or rows / n * uses >= USES_A_SLICE)
    return number, 'activations of smaller slices stay in the caches'
  if platform != 'tpu' or model.tokens is None or model.objective.masked:
    return 1, 'more were not measured'
  return _on_tpu(model, mesh, rows, config.system.execution.scan, chip)


def stream_bytes(model: PureModel, rows: int) -> int:
  """Bytes of the residual stream of so many images. `model.tokens` is not None."""
  return rows * model.tokens * model.config.width * jnp.dtype(model.config.dtype).itemsize


def _on_tpu(model, mesh, rows, scan, chip):
  c, tokens = model.config, model.tokens
  if stack.scanned(scan, c.depth, 'tpu'):
    return 1, 'scanned layers write what they keep in any case'
  if _split(model, mesh):
    return 1, 'each more would gather the parameters again'
  hungry = chip and chip.peak_flops / chip.hbm_bandwidth > FLOPS_A_BYTE * c.width
  near = NEAR_BYTES / 2 if hungry else NEAR_BYTES
  worth = lambda n: n == 1 or rows // n * tokens >= TOKENS_A_CHANNEL * c.width
  for n in _divisors(rows):
    if stream_bytes(model, rows // n) <= near and worth(n):
      return n, f'so that the activations of {rows // n} images a device stay near its cores'
  return 1, 'gradients of so few images as stay near the cores would cost more to add up'


def _split(model, mesh):
  """Whether a parameter is split over devices."""
  logical = jax.tree.leaves(model.param_axes(), is_leaf=lambda x: isinstance(x, tuple))
  return any(mesh.shape[axis] > 1 for names in logical for name in names for axis in mesh_axes(name, mesh.rules))


def _divisors(rows):
  return [n for n in range(1, rows + 1) if rows % n == 0]
