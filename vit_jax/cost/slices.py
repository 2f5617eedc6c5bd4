"""TPU slices: their names, chips and hosts, and the identifiers that clusters use for them."""

import dataclasses
import math
import re
from typing import ClassVar

from vit_jax.cost.hardware import CHIPS, GPUS, Chip
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
# Other spellings: of the Cloud TPU API, of SkyPilot (tpu-v5litepod-16, tpu-v5e-16) and of Google's marketing.
_ALIASES = {'v5litepod': 'v5e', 'v5lite': 'v5e', 'v7x': 'tpu7x', 'trillium': 'v6e', 'ironwood': 'tpu7x'}
NAMES = {*GENERATIONS, *_ALIASES}


@dataclasses.dataclass(frozen=True)
class Machine:
  """A machine type of Compute Engine with TPU chips."""
  name: str
  cpus: int  # virtual
  memory_gb: int


# By (generation, chips). From cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x: "VM types") and
# /kubernetes-engine/docs/concepts/plan-tpus.
_MACHINES = {
    ('v4', 4): Machine('ct4p-hightpu-4t', 240, 407),
    ('v5e', 1): Machine('ct5lp-hightpu-1t', 24, 48), ('v5e', 4): Machine('ct5lp-hightpu-4t', 112, 192),
    ('v5e', 8): Machine('ct5lp-hightpu-8t', 224, 384), ('v5p', 4): Machine('ct5p-hightpu-4t', 208, 448),
    ('v6e', 1): Machine('ct6e-standard-1t', 44, 176), ('v6e', 4): Machine('ct6e-standard-4t', 180, 720),
    ('v6e', 8): Machine('ct6e-standard-8t', 180, 1440), ('tpu7x', 4): Machine('tpu7x-standard-4t', 224, 960),
}


@dataclasses.dataclass(frozen=True)
class Slice:
  """One or several equal TPU slices."""
  generation: str  # a key of GENERATIONS
  topology: str  # chips along each axis of the interconnect, such as 4x4
  count: int = 1
  host_chips: int | None = None  # chips per host, where there is a choice; None: the usual number
  platform: ClassVar[str] = 'tpu'
  parts: ClassVar[str] = 'slices'  # what `count` counts

  @property
  def chips_per_host(self) -> int:
    """Four; one in slices of one chip; eight in 2D slices of eight, unless `host_chips` says two hosts of four."""
    chips = _chips(self.topology)
    usual = chips if chips == 1 or self.topology == '2x4' else 4
    return self.host_chips or usual

  @property
  def machine(self) -> Machine:
    """The machine type of its hosts."""
    return _MACHINES[self.generation, self.chips_per_host]

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
  def flag(self) -> str:
    """The flag of `plan` for one slice."""
    return f'--tpu={self.name}'

  @property
  def larger(self) -> list['Slice']:
    """The slices of the same generation with more chips, smallest first."""
    sizes = [dataclasses.replace(self, topology=topology) for topology in GENERATIONS[self.generation].topologies]
    return sorted((other for other in sizes if other.chips > self.chips), key=lambda other: other.chips)

  @property
  def number(self) -> int:
    """The number in the name."""
    return _chips(self.topology) * GENERATIONS[self.generation].cores

  def __str__(self):
    """The name with the number of chips, which can differ from the one in it: v5p-512 (256 chips, 4x8x8)."""
    chips = _chips(self.topology)
    one = f'{self.name} ({chips} chip{"s" if chips > 1 else ""}, {self.topology})'
    return one if self.count == 1 else f'{self.count} x {one}'


def find(name: str, count: int = 1, host_chips: int | None = None) -> Slice:
  """The slice called `name`, `count` times; names as SkyPilot writes them, such as tpu-v5litepod-16, count too.

  Args:
    name: such as v5e-16.
    count: the number of slices.
    host_chips: chips per host, for slices that are sold on two kinds of machines.

  Raises:
    UserError: an unknown name, or a size that does not exist; the message suggests the nearest.
  """
  found = _find(name, count)
  if host_chips in (None, found.chips_per_host):
    return found
  if (found.topology, host_chips) != ('2x4', 4):
    raise UserError(f'--chips_per_host={host_chips}: {found.name} has hosts of {found.chips_per_host} chips; there is '
                    'a choice only for v5e-8 and v6e-8: 8 (one host) or 4 (two hosts)')
  return dataclasses.replace(found, host_chips=host_chips)


def _find(name, count):
  if count < 1:
    raise UserError(f'--num_slices={count}: expected at least 1')
  spelled = re.sub(r'^(cloud-)?tpu[-_](?=[a-z])', '', name.strip().lower().replace('_', '-')).removesuffix(':1')
  match = re.fullmatch(r'([a-z0-9]+)-(\d+)', spelled, re.ASCII)
  generation = match and _ALIASES.get(match[1], match[1])
  if generation not in GENERATIONS:
    examples = ', '.join(_sizes(g)[2].name for g in GENERATIONS)
    written = match[1] if match else name.partition('-')[0]
    if written.lower() in GPUS:
      raise UserError(f'--tpu={name}: {written} is a GPU: give it as --gpu')
    raise UserError(f'--tpu={name}: expected a TPU slice, GENERATION-NUMBER, such as {examples}'
                    f'{nearest(written, NAMES)}')
  sizes, number = _sizes(generation), int(match[2])
  for size in sizes:
    if size.number == number:
      return dataclasses.replace(size, count=count)
  below, above = [s for s in sizes if s.number < number][-1:], [s for s in sizes if s.number > number][:1]
  cores = ' (the number counts cores, two per chip)' if GENERATIONS[generation].cores == 2 else ''
  raise UserError(f'--tpu={name}: no slice has this size{cores}; the nearest: {" or ".join(map(str, below + above))}')


def _sizes(generation):
  return [Slice(generation, topology) for topology in GENERATIONS[generation].topologies]


def _chips(topology):
  return math.prod(map(int, topology.split('x')))
