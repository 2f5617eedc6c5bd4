"""GPUs by name and number, such as h100-8, and the hosts that they stand in."""

import dataclasses
import re
from typing import ClassVar

from vit_jax.cost import slices
from vit_jax.cost.hardware import CHIPS, GPUS, Chip
from vit_jax.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Gpus:
  """Equal GPUs. For what they are planned as, they have the properties of `slices.Slice`."""
  kind: str  # a key of hardware.GPUS
  chips: int
  platform: ClassVar[str] = 'gpu'
  parts: ClassVar[str] = 'hosts'  # what `count` counts

  @property
  def chip(self) -> Chip:
    """The kind of GPU."""
    return CHIPS[GPUS[self.kind]]

  @property
  def count(self) -> int:
    """The number of hosts (of GB200: of racks) whose GPUs send to each other without the network."""
    return -(-self.chips // self.chip.joined)

  @property
  def devices(self) -> int:
    """The number of JAX devices."""
    return self.chips

  @property
  def name(self) -> str:
    """Such as h100-8."""
    return f'{self.kind}-{self.chips}'

  @property
  def flag(self) -> str:
    """The flag of `plan` for them."""
    return f'--gpu={self.name}'

  @property
  def larger(self) -> list['Gpus']:
    """Twice as many of them, four times as many, and so on."""
    doubled = (self.chips * 2**i for i in range(1, 11))
    return [Gpus(self.kind, chips) for chips in doubled if _stands(self.chip, chips)]

  def __str__(self):
    hosts = f' in {self.count} {"hosts" if self.chip.joined == 8 else "racks"}' if self.count > 1 else ''
    return f'{self.name} ({self.chips} x {GPUS[self.kind]}{hosts})'


Target = slices.Slice | Gpus  # what a run is planned for


def target(tpu: str | None, gpu: str | None, num_slices: int = 1) -> Target:
  """What `--tpu` or `--gpu` names; raises UserError as `slices.find` and `find` do, and unless one of them is given."""
  if (tpu is None) == (gpu is None):
    raise UserError('expected one of --tpu and --gpu, as in --tpu=v5e-16 or --gpu=h100-8')
  if gpu is None:
    return slices.find(tpu, num_slices)
  if num_slices != 1:
    raise UserError(f'--num_slices={num_slices}: is for TPUs; the number of GPUs says how many hosts they fill, '
                    'as in --gpu=h100-16')
  return find(gpu)


def find(name: str) -> Gpus:
  """The GPUs called `name`: NAME-NUMBER or, as SkyPilot writes it, NAME:NUMBER.

  A NAME is a key of `hardware.GPUS`, or JAX's name of the device.

  Raises:
    UserError: a name that is not written so; a GPU that is not in the table; a number that fills no whole hosts.
  """
  match = re.fullmatch(r'(.*[^-:])[-:](\d+)', _spelled(name), re.ASCII)
  if not match or int(match[2]) < 1:
    raise UserError(f'--gpu={name}: expected the name of a GPU and how many, NAME-NUMBER, such as h100-8 or l4-1')
  kind, number = {_spelled(long): short for short, long in GPUS.items()}.get(match[1], match[1]), int(match[2])
  if kind in slices.NAMES:
    raise UserError(f'--gpu={name}: {kind} is a TPU: give it as --tpu')
  if kind not in GPUS:
    raise UserError(f'--gpu={name}: {match[1]} is not in the table of GPUs{nearest(kind, GPUS)} (another one is a line '
                    'in vit_jax/cost/hardware.py, from its data sheet)')
  found = Gpus(kind, number)
  if not _stands(found.chip, number):
    joined = found.chip.joined
    raise UserError(f'--gpu={name}: more than {joined} are planned in whole groups of {joined}; the nearest: '
                    f'{kind}-{number // joined * joined} or {kind}-{-(-number // joined) * joined}')
  return found


def _spelled(name):
  return re.sub(r'[\s_-]+', '-', name.strip().lower()).removeprefix('nvidia-')


def _stands(chip, number):
  return number <= chip.joined or number % chip.joined == 0
