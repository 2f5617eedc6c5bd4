"""TPU slices: their names, chips and hosts, and the identifiers that clusters use for them."""

import dataclasses
import math
import re

from vit_jax.cost.hardware import CHIPS, Chip
from vit_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Generation:
  """A TPU generation: its chips, the names and topologies of its slices, and how to request one."""
  device_kind: str  # of JAX; the key of hardware.CHIPS
  cores: int  # per chip, as counted in the name of a slice: v5p-512 has 256 chips, v5e-16 has 16
  topologies: tuple[str, ...]
  gke_accelerator: str  # the value of the node label cloud.google.com/gke-tpu-accelerator
  vm_type: str | None = None  # the accelerator type of the Cloud TPU API; None if the API does not have it
  vm_runtime: str | None = None  # the system image of a TPU VM


_SQUARE = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBE = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16', '8x16x16')

# From the tables of configurations, machine types and runtimes: cloud.google.com/tpu/docs and /kubernetes-engine/docs.
GENERATIONS = {
    'v4': Generation('TPU v4', 2, (*_CUBE[:8], '8x8x12', *_CUBE[8:]), 'tpu-v4-podslice', 'v4', 'tpu-ubuntu2204-base'),
    'v5e': Generation('TPU v5 lite', 1, _SQUARE, 'tpu-v5-lite-podslice', 'v5litepod', 'v2-alpha-tpuv5-lite'),
    'v5p': Generation('TPU v5', 2, (*_CUBE, '16x16x16', '16x16x24'), 'tpu-v5p-slice', 'v5p', 'v2-alpha-tpuv5'),
    'v6e': Generation('TPU v6 lite', 1, _SQUARE, 'tpu-v6e-slice', 'v6e', 'v2-alpha-tpuv6e'),
    'tpu7x': Generation('TPU7x', 2, _CUBE, 'tpu7x'),
}
_ALIASES = {'v5litepod': 'v5e'}


@dataclasses.dataclass(frozen=True)
class Slice:
  """One or several equal TPU slices."""
  generation: str  # a key of GENERATIONS
  topology: str  # chips along each axis of the interconnect, such as 4x4
  count: int = 1

  @property
  def chips_per_host(self) -> int:
    """Four, except for the 2D slices of one or eight chips, which are a single host."""
    chips = _chips(self.topology)
    return chips if chips == 1 or self.topology == '2x4' else 4

  @property
  def hosts(self) -> int:
    """The number of hosts per slice."""
    return _chips(self.topology) // self.chips_per_host

  @property
  def chips(self) -> int:
    """The number of chips in all slices."""
    return self.count * _chips(self.topology)

  @property
  def chip(self) -> Chip:
    """The kind of chip."""
    return CHIPS[GENERATIONS[self.generation].device_kind]

  @property
  def devices(self) -> int:
    """The number of JAX devices in all slices."""
    return self.chips * self.chip.devices

  @property
  def name(self) -> str:
    """The name of one slice, such as v5p-512."""
    return f'{self.generation}-{self.number}'

  @property
  def number(self) -> int:
    """The number in the name."""
    return _chips(self.topology) * GENERATIONS[self.generation].cores

  def __str__(self):
    """The name with the number of chips, which can differ from the one in it: v5p-512 (256 chips, 4x8x8)."""
    chips = _chips(self.topology)
    one = f'{self.name} ({chips} chip{"s" if chips > 1 else ""}, {self.topology})'
    return one if self.count == 1 else f'{self.count} x {one}'


def find(name: str, count: int = 1) -> Slice:
  """The slice called `name`, `count` times.

  Raises:
    UserError: an unknown name, or a size that does not exist; the message suggests the nearest.
  """
  if count < 1:
    raise UserError(f'--num_slices={count}: expected at least 1')
  match = re.fullmatch(r'([a-z0-9]+)-(\d+)', name.strip().lower(), re.ASCII)
  generation = match and _ALIASES.get(match[1], match[1])
  if generation not in GENERATIONS:
    examples = ', '.join(_sizes(g)[2].name for g in GENERATIONS)
    written = match[1] if match else name.partition('-')[0]
    raise UserError(f'--tpu={name}: expected a TPU slice, GENERATION-NUMBER, such as {examples}'
                    f'{nearest(written, [*GENERATIONS, *_ALIASES])}')
  sizes, number = _sizes(generation), int(match[2])
  for size in sizes:
    if size.number == number:
      return dataclasses.replace(size, count=count)
  below, above = [s for s in sizes if s.number < number][-1:], [s for s in sizes if s.number > number][:1]
  cores = ' (the number counts cores, two per chip)' if GENERATIONS[generation].cores == 2 else ''
  raise UserError(f'--tpu={name}: no slice has this size{cores}; the nearest: {" or ".join(map(str, below + above))}')


def larger(size: Slice) -> list[Slice]:
  """The slices of the same generation with more chips, smallest first."""
  sizes = [dataclasses.replace(size, topology=topology) for topology in GENERATIONS[size.generation].topologies]
  return sorted((other for other in sizes if other.chips > size.chips), key=lambda other: other.chips)


def _sizes(generation):
  return [Slice(generation, topology) for topology in GENERATIONS[generation].topologies]


def _chips(topology):
  return math.prod(map(int, topology.split('x')))
