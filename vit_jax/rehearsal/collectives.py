"""Collectives of a compiled program: the bytes that devices send within a slice and between slices."""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from vit_jax.rehearsal.hlo import Module

# The bytes that a device sends, as a multiple of its operand's, with n devices in a group and ring algorithms (as in
# Thakur et al. 2005; they are optimal in bytes).
_SENT = {
    'all-reduce': lambda n: 2 * (n - 1) / n,
    'all-gather': lambda n: n - 1,  # the operand is a 1/n part of the result
    'reduce-scatter': lambda n: (n - 1) / n,
    'all-to-all': lambda n: (n - 1) / n,
    'ragged-all-to-all': lambda n: (n - 1) / n,
    'collective-permute': lambda n: 1,
    'collective-broadcast': lambda n: 1,
}


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective instruction.

  Attributes:
    kind: the HLO opcode, such as 'all-reduce'.
    times: how often it runs per step.
    group: the first group of devices that communicate, by their index in the slice's mesh.
    operand_bytes: the size of the operand on one device.
    slices: the number of slices that communicate. Above 1, the group consists of a device and its peers in the other
      slices.
  """
  kind: str
  times: int
  group: tuple[int, ...]
  operand_bytes: int
  slices: int = 1

  @property
  def sent(self) -> float:
    """Bytes that a device sends each time the collective runs."""
    return _SENT[self.kind](max(len(self.group), self.slices)) * self.operand_bytes


def find(module: Module) -> Iterator[Collective]:
  """Yields the collectives of one step, with their trip counts.

  An asynchronous collective counts once. It is either a pair of start and done or, from the TPU compiler, several
  stages that are fused with computation and share a channel. Collectives over groups of one device send nothing and are
  left out. A fusion named all-reduce-scatter keeps only a part of its all-reduce and counts as a reduce-scatter.

  The program for several slices is that of one slice. The TPU compiler splits a collective that spans slices in two: a
  collective over the slice's devices, and a send to the hosts, which combine it with those of the other slices over the
  data-center network (MegaScale).

  Raises:
    ValueError: a collective or its groups are written in a form that is not supported.
  """
  staged: dict[str, Collective] = {}  # by channel
  scattering = {id(body) for name, body in module.computations.items() if name.startswith('all-reduce-scatter')}
  for computation, instruction, times in module.executed():
    for where, one in [(computation, instruction), *module.fused(instruction)]:
      size = sum(array.bytes for name in one.operands for array in where[name].arrays)
      if one.opcode == 'send' and 'xla_megascale' in one.attributes:
        yield _between(one, times, size)
        continue
      kind = one.opcode.removesuffix('-start')
      if kind not in _SENT or len(group := _first_group(one.attributes, module.devices)) == 1:
        continue
      found = Collective('reduce-scatter' if id(where) in scattering else kind, times, group, size)
      channel = re.search(r'channel_id=(\d+)', one.attributes)
      if one is instruction or channel is None:
        yield found
      elif channel[1] not in staged or times < staged[channel[1]].times:  # some stages may be inside a loop
        staged[channel[1]] = found
  yield from staged.values()


def _between(send, times, size):
  """The collective between slices that a send to the hosts belongs to."""
  text = send.attributes
  if '_xla_megascale_transfer_type="ONE_TO_ONE"' in text:  # between pairs of devices
    return Collective('collective-permute', times, (0,), size, 2)
  kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', text)
  slices = re.search(r'_xla_megascale_target="\{([\d,]+)\}x', text)  # "{1,2}x{0:3}": slices, and devices in them
  if not (kind and slices) or (name := kind[1].lower().replace('_', '-')) not in _SENT:
    raise ValueError(f'{send.name}: unsupported transfer between slices: {text[:500]}')
  return Collective(name, times, (0,), size, len(slices[1].split(',')))


def summary(module: Module) -> dict[str, dict[str, int]]:
  """{kind: {count, bytes}} of one step: how often collectives of a kind run, and the bytes that a device sends."""
  out = {}
  for one in find(module):
    entry = out.setdefault(one.kind + (' between slices' if one.slices > 1 else ''), {'count': 0, 'bytes': 0})
    entry['count'] += one.times
    entry['bytes'] += round(one.times * one.sent)
  return dict(sorted(out.items()))


def sent(module: Module) -> dict[str, float]:
  """Bytes that a device sends per step: 'within' its slice, and 'between' slices over the data-center network."""
  out = {'within': 0.0, 'between': 0.0}
  for one in find(module):
    out['between' if one.slices > 1 else 'within'] += one.times * one.sent
  return out


def _first_group(attributes: str, devices: int) -> tuple[int, ...]:
  """The first replica group, in any of the notations of HLO."""
  if match := re.search(r'source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}', attributes):
    pairs = [tuple(map(int, pair)) for pair in re.findall(r'(\d+),(\d+)', match[1])]
    return next((pair for pair in pairs if pair[0] != pair[1]), (0,))
  if match := re.search(rf'replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_IOTA}\))? ?\{{([^}}]*)\}}', attributes):
    places = _mesh_group(match[1], match[4])
    return tuple(sorted(_iota(match[2], match[3]).ravel()[list(places)].tolist())) if match[2] else places
  if match := re.search(rf'replica_groups=\[(\d+),(\d+)\]<={_IOTA}', attributes):
    return tuple(_iota(match[3], match[4]).reshape(int(match[1]), int(match[2]))[0].tolist())
  if match := re.search(r'replica_groups=\{\{([\d,]+)\}', attributes):
    return tuple(_integers(match[1]))
  if (match := re.search(r'replica_groups=(.{,200})', attributes)) and not match[1].startswith('{}'):
    raise ValueError(f'unsupported notation of replica groups: {match[1]}')
  return tuple(range(devices))  # without groups, all devices are one group


_IOTA = r'\[([\d,]+)\](?:T\(([\d,]+)\))?'  # [8,32]T(1,0): 0 to 255 as an array of that shape, then transposed


def _iota(shape, order):
  shape = _integers(shape)
  return np.arange(math.prod(shape)).reshape(shape).transpose(_integers(order) if order else None)


def _mesh_group(axes, chosen):
  """The first group along the axes `chosen` of a mesh, in HLO's notation mesh[axes] {chosen}.

  `axes` are names and sizes, as in 'a'=4,'b'=2. `chosen` are names, as in 'b','a':(2)2, where (before)size is a part of
  an axis.
  """
  sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", axes)}
  strides, stride = {}, 1
  for name in reversed(sizes):
    strides[name] = stride
    stride *= sizes[name]
  group = np.zeros(1, int)
  for name, before, part in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen):
    size = int(part) if part else sizes[name]
    step = strides[name] * (sizes[name] // (int(before) * size) if part else 1)
    group = (group[:, None] + step * np.arange(size)).ravel()
  return tuple(sorted(group.tolist()))


def _integers(text):
  return [int(n) for n in text.split(',')]
