"""TPU slices by the names they are sold under."""

import dataclasses
import math
import re

from vit_jax.cost.hardware import CHIPS, Chip
from vit_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Generation:
  """A TPU generation: what its chips are, how its slices are named, and which there are."""
  device_kind: str
  cores: int  # that the number in a slice's name counts on one chip: v5p-512 is 256 chips, v5e-16 is 16
  topologies: tuple[str, ...]


_SQUARE = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBE = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16', '8x16x16')

# What can be ordered, from the configuration tables at cloud.google.com/tpu/docs and .../kubernetes-engine/docs.
GENERATIONS = {
    'v4': Generation('TPU v4', 2, (*_CUBE[:8], '8x8x12', *_CUBE[8:])),
    'v5e': Generation('TPU v5 lite', 1, _SQUARE),
    'v5p': Generation('TPU v5', 2, (*_CUBE, '16x16x16', '16x16x24')),
    'v6e': Generation('TPU v6 lite', 1, _SQUARE),
    'tpu7x': Generation('TPU7x', 2, _CUBE),
}
_ALIASES = {'v5litepod': 'v5e'}  # the name in Cloud TPU's own API


@dataclasses.dataclass(frozen=True)
class Slice:
  """One or several equal TPU slices."""
  generation: str  # of GENERATIONS
  topology: str  # chips along each axis of the interconnect, as in 4x4
  count: int = 1

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
    return f'{self.generation}-{_chips(self.topology) * GENERATIONS[self.generation].cores}'

  def __str__(self):
    """The name, with the number of chips where the name tells another, such as v5p-512 (256 chips, 4x8x8)."""
    one = f'{self.name} ({_chips(self.topology)} chips, {self.topology})'
    return one if self.count == 1 else f'{self.count} x {one}'


def find(name: str, count: int = 1) -> Slice:
  """The slice of that name.

  Raises:
    UserError: an unknown name, or a size that is not sold; the nearest is named.
  """
  if count < 1:
    raise UserError(f'--num_slices={count}: must be at least 1')
  match = re.fullmatch(r'([a-z0-9]+)-(\d+)', name.strip().lower())
  generation = match and _ALIASES.get(match[1], match[1])
  if generation not in GENERATIONS:
    known = [_names(g)[2] for g in GENERATIONS]
    written = match[1] if match else name.partition('-')[0]
    raise UserError(f'--tpu={name}: a TPU slice is needed, GENERATION-NUMBER, such as {", ".join(known)}'
                    f'{nearest(written, [*GENERATIONS, *_ALIASES])}')
  names = _names(generation)
  if (ours := f'{generation}-{int(match[2])}') in names:
    return Slice(generation, GENERATIONS[generation].topologies[names.index(ours)], count)
  close = ' or '.join(str(Slice(generation, GENERATIONS[generation].topologies[i]))
                      for i in _nearest_sizes(names, int(match[2])))
  counts = ' (the number counts cores, two a chip)' if GENERATIONS[generation].cores == 2 else ''
  raise UserError(f'--tpu={name}: no such slice is sold{counts}; the nearest: {close}')


def larger(size: Slice) -> list[Slice]:
  """The slices of the same generation with more chips, smallest first."""
  sizes = [dataclasses.replace(size, topology=topology) for topology in GENERATIONS[size.generation].topologies]
  return sorted((other for other in sizes if other.chips > size.chips), key=lambda other: other.chips)


def _chips(topology):
  return math.prod(int(n) for n in topology.split('x'))


def _names(generation):
  return [Slice(generation, topology).name for topology in GENERATIONS[generation].topologies]


def _nearest_sizes(names, number):
  """Indices of the next smaller and the next larger size, where they are."""
  numbers = [int(name.rpartition('-')[2]) for name in names]
  below = [i for i, n in enumerate(numbers) if n < number][-1:]
  return below + [i for i, n in enumerate(numbers) if n > number][:1]
