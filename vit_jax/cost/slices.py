"""TPU slices: the names they are sold under, their chips and hosts, and what clusters call them."""

import dataclasses
import math
import re

from vit_jax.cost.hardware import CHIPS, Chip
from vit_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Generation:
  """A TPU generation: its chips, how its slices are named, which there are, and what must be asked for to get one."""
  device_kind: str  # JAX's name, the key of hardware.CHIPS
  cores: int  # that the number in a slice's name counts on one chip: v5p-512 is 256 chips, v5e-16 is 16
  topologies: tuple[str, ...]
  gke_accelerator: str  # value of the node label cloud.google.com/gke-tpu-accelerator
  vm_type: str | None = None  # what Cloud TPU's own API calls it, where that API has it
  vm_runtime: str | None = None  # the system image of such a TPU VM


_SQUARE = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBE = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16', '8x16x16')

# From the tables of configurations, machine types and runtimes: cloud.google.com/tpu/docs, .../kubernetes-engine/docs.
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
  generation: str  # of GENERATIONS
  topology: str  # chips along each axis of the interconnect, as in 4x4
  count: int = 1

  @property
  def chips_per_host(self) -> int:
    """Four, but for the flat slices of one or eight chips, which are one machine."""
    chips = _chips(self.topology)
    return chips if chips == 1 or self.topology == '2x4' else 4

  @property
  def hosts(self) -> int:
    """Of one slice."""
    return _chips(self.topology) // self.chips_per_host

  @property
  def chips(self) -> int:
    """Of all slices."""
    return self.count * _chips(self.topology)

  @property
  def chip(self) -> Chip:
    return CHIPS[GENERATIONS[self.generation].device_kind]

  @property
  def devices(self) -> int:
    """JAX's, of all slices."""
    return self.chips * self.chip.devices

  @property
  def name(self) -> str:
    """Of one slice."""
    return f'{self.generation}-{self.number}'

  @property
  def number(self) -> int:
    """The one in the name."""
    return _chips(self.topology) * GENERATIONS[self.generation].cores

  def __str__(self):
    """The name with the number of chips, which it does not always tell: v5p-512 (256 chips, 4x8x8)."""
    chips = _chips(self.topology)
    one = f'{self.name} ({chips} chip{"s" if chips > 1 else ""}, {self.topology})'
    return one if self.count == 1 else f'{self.count} x {one}'


def find(name: str, count: int = 1) -> Slice:
  """The slice of that name.

  Raises:
    UserError: an unknown name, or a size that is not sold; the nearest is named.
  """
  if count < 1:
    raise UserError(f'--num_slices={count}: must be at least 1')
  match = re.fullmatch(r'([a-z0-9]+)-(\d+)', name.strip().lower(), re.ASCII)
  generation = match and _ALIASES.get(match[1], match[1])
  if generation not in GENERATIONS:
    examples = ', '.join(_sizes(g)[2].name for g in GENERATIONS)
    written = match[1] if match else name.partition('-')[0]
    raise UserError(f'--tpu={name}: a TPU slice is needed, GENERATION-NUMBER, such as {examples}'
                    f'{nearest(written, [*GENERATIONS, *_ALIASES])}')
  sizes, number = _sizes(generation), int(match[2])
  for size in sizes:
    if size.number == number:
      return dataclasses.replace(size, count=count)
  below, above = [s for s in sizes if s.number < number][-1:], [s for s in sizes if s.number > number][:1]
  counts = ' (the number counts cores, two a chip)' if GENERATIONS[generation].cores == 2 else ''
  raise UserError(f'--tpu={name}: no such slice is sold{counts}; the nearest: {" or ".join(map(str, below + above))}')


def larger(size: Slice) -> list[Slice]:
  """The slices of the same generation with more chips, smallest first."""
  sizes = [dataclasses.replace(size, topology=topology) for topology in GENERATIONS[size.generation].topologies]
  return sorted((other for other in sizes if other.chips > size.chips), key=lambda other: other.chips)


def _sizes(generation):
  return [Slice(generation, topology) for topology in GENERATIONS[generation].topologies]


def _chips(topology):
  return math.prod(map(int, topology.split('x')))
