"""Estimates of a step's memory and work from shapes alone, without the compiler. The search ranks choices by them.

The size of the state is exact. What the forward pass keeps is exact up to padding. The work space of the backward pass
and the traffic are rules of thumb, calibrated on ViTs compiled for TPUs (experiments/plan). Results of the compiler
replace them where there are any. For GPUs there are none.
"""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp

from vit_jax.cost.gpus import Target
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.rehearsal.job import Choice, Job
from vit_jax.training import microbatches, state

# The work space of the backward pass, in units of what one layer keeps without rematerialisation.
_WORK_SPACE = 1.0
# Bytes moved to and from HBM for each byte that a step would keep without rematerialisation.
_TRAFFIC = 6.3
_FAR = 1.35  # as many times if the residual stream does not stay near the cores from one operation to the next
_LANES, _SUBLANES = 128, 8  # sides of the tiles in which a TPU stores float32 arrays


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of memory on one chip at the time of peak use."""
  parameters: float  # including their moving average, and a teacher's parameters
  optimizer: float
  activations: float  # kept by the forward pass for the backward pass
  temporaries: float  # gradients, the batch, work space, copies

  @property
  def peak(self) -> float:
    return self.parameters + self.optimizer + self.activations + self.temporaries


@dataclasses.dataclass(frozen=True)
class Work:
  """The work of one device per step, including recomputation."""
  flops: float
  hbm_bytes: float  # moved to and from its HBM
  within_bytes: float  # sent to other devices of its slice or host
  between_bytes: float  # sent to other slices or hosts


def state_bytes(job: Job, sizes: tuple[int, ...], platform: str = 'tpu') -> tuple[int, int]:
  """Bytes of (parameters with their moving average, optimizer state) on one device, as it stores them."""
  shapes = job.state_shapes
  places = state.placed(job.model, shapes, mesh_lib.abstract_mesh(sizes, job.config.system.mesh.rules))
  one = lambda array, place: _stored(place.shard_shape(array.shape), array.dtype.itemsize, platform)
  size = lambda *names: sum(sum(jax.tree.leaves(jax.tree.map(one, getattr(shapes, name), getattr(places, name))))
                            for name in names)
  return size('params', 'ema'), size('optimizer')


def teacher_bytes(job: Job, sizes: tuple[int, ...], platform: str = 'tpu') -> int:
  """Bytes of a teacher's arrays on one device, as it stores them; 0 without a teacher."""
  shapes = job.teacher.shapes(mesh_lib.abstract_mesh(sizes, job.config.system.mesh.rules)) if job.teacher else {}
  return sum(_stored(s.sharding.shard_shape(s.shape), s.dtype.itemsize, platform) for s in jax.tree.leaves(shapes))


def _stored(shape, itemsize, platform):
  return tiled_bytes(shape, itemsize) if platform == 'tpu' else itemsize * math.prod(shape)


def tiled_bytes(shape: tuple[int, ...], itemsize: int = 4) -> int:
  """Bytes of an array as a TPU stores it, with two dimensions in tiles of 8 x 128 words.

  The two dimensions are those that need the least padding.
  """
  if len(shape) < 2:
    return itemsize * math.prod(shape)
  padded = []
  for lane, sublane in itertools.permutations(range(len(shape)), 2):
    sides = {lane: _LANES, sublane: min(_SUBLANES * 4 // itemsize, _power_of_two(shape[sublane]))}
    padded.append(math.prod(-(-size // sides.get(dim, 1)) * sides.get(dim, 1) for dim, size in enumerate(shape)))
  return itemsize * min(padded)


def memory(job: Job, target: Target, choice: Choice) -> Memory:
  """Estimates the memory of one chip."""
  images = _images(job, choice)
  parameters, optimizer = state_bytes(job, choice.sizes, target.platform)
  taught = teacher_bytes(job, choice.sizes, target.platform)
  layer = job.kept_per_image('none', target.platform) * images / _layers(job.config.model) / choice.sizes[2]
  gradients = parameters / (2 if job.config.optimizer.ema_decay else 1) * (2 if choice.microbatches > 1 else 1)
  batch = math.prod(job.image_shape) * images * choice.microbatches
  kept = job.kept_per_image(choice.remat, target.platform) * images / choice.sizes[2]
  temporaries = _WORK_SPACE * layer + gradients + batch + 2 * job.params / choice.sizes[2]
  return Memory(*(target.chip.devices * size for size in (parameters + taught, optimizer, kept, temporaries)))


def work(job: Job, target: Target, choice: Choice) -> Work:
  """Estimates the work of one device."""
  data, fsdp, tensor = choice.sizes
  model, micro, batch = job.config.model, choice.microbatches, job.config.data.batch_size
  itemsize = jnp.dtype(getattr(model, 'dtype', 'float32')).itemsize
  images = _images(job, choice) * micro
  executed = job.executed_flops(choice.remat, choice.microbatches)
  weights = job.params / tensor * itemsize  # of all layers, in the compute dtype
  moved = _TRAFFIC * job.kept_per_image('none', target.platform) * images / tensor * executed / job.spent_per_image
  if target.platform == 'tpu' and job.model.tokens and (
      microbatches.stream_bytes(job.model, images // micro) > microbatches.NEAR_BYTES):
    moved *= _FAR
  moved += 3 * weights * micro + 28 * job.params / (fsdp * tensor)  # Adam reads 4 and writes 3 float32 per parameter
  # For each micro-batch, fsdp gathers the weights for both passes and scatters the gradients. tensor gathers and
  # scatters the residual stream around both sub-blocks. data sums the gradients. Of the axes, data spans slices or
  # hosts first.
  gathered, streamed, gradients = 3 * micro * weights, 0.0, 2 * weights / fsdp
  if micro > 1:  # accumulated in float32, and summed at the end
    gradients *= 4 / itemsize
  if tensor > 1 and hasattr(model, 'depth'):  # a ViT; for other families only the compiler knows
    streamed = 8 * model.depth * images * _tokens(job) * model.width * itemsize
  across_data = math.gcd(data, target.count)
  across_fsdp = math.gcd(fsdp, target.count // across_data)
  across_tensor = target.count // across_data // across_fsdp
  between = (gathered * (across_fsdp - 1) / fsdp + streamed * (across_tensor - 1) / tensor
             + gradients * (across_data - 1) / data)
  data //= across_data
  within = gathered * (fsdp - 1) / fsdp + streamed * (tensor - 1) / tensor + gradients * (data - 1) / data
  return Work(executed * batch / target.devices, moved, within, between)


def _layers(model):
  """As many of the layers that keep most as would keep what all layers do."""
  if hasattr(model, 'depth'):
    return model.depth
  # From one stage to the next pictures have a quarter of the places and twice the channels.
  return max(1.0, sum(depth / 2**stage for stage, depth in enumerate(getattr(model, 'depths', ()))))


def _images(job, choice):
  """Images of one micro-batch on one device."""
  return job.config.data.batch_size // (choice.sizes[0] * choice.sizes[1] * choice.microbatches)


def _tokens(job):
  return math.prod(job.image_shape[:2]) // job.config.model.patch_size**2


def _power_of_two(size):
  """The smallest power of two that is at least `size`."""
  return 1 << (size - 1).bit_length()
