"""Parser of a compiled program's text (XLA's HLO): instructions, how often each runs, and the sizes of its arrays.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs. Shapes are per device.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_BITS = {'pred': 8, 'token': 0, 'opaque': 0, 'bf16': 16}  # others contain the number: f32, s8, u4, f8e4m3fn, c64
_ARRAY = re.compile(r'([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$')
_INSTRUCTION = re.compile(r'\s+(ROOT )?%?([\w.\-]+) = ')


@dataclasses.dataclass(frozen=True)
class Array:
  """An array in a device's memory."""
  dtype: str
  shape: tuple[int, ...]
  layout: str = ''  # minor_to_major:tiles, as in 1,0:T(8,128)

  @property
  def space(self) -> int:
    """The memory space: 0 is HBM on a TPU, others are small memories near the cores."""
    match = re.search(r'S\((\d+)\)', self.layout)
    return int(match[1]) if match else 0

  @property
  def bytes(self) -> int:
    """The size in bytes, including the padding of tiles."""
    match = re.search(r'([\d,]*):T\(([\d,]+)\)', self.layout)
    shape = list(self.shape)
    if match and match[1]:
      order, tile = ([int(n) for n in group.split(',')] for group in match.groups())
      for dim, size in zip(order, reversed(tile)):  # a tile's last side is along the most minor dimension
        shape[dim] = -(-shape[dim] // size) * size
    return math.prod(shape) * _bits(self.dtype) // 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One HLO instruction."""
  name: str
  opcode: str
  shape: str  # as written: an array or a tuple
  operands: tuple[str, ...]
  attributes: str
  root: bool

  @functools.cached_property
  def arrays(self) -> list[Array]:
    """The arrays that it returns, with tuples flattened."""
    return arrays(self.shape)

  def called(self, *roles: str) -> list[str]:
    """Names of the computations that it calls in `roles` (calls, body, condition, to_apply, branch_computations)."""
    names = []
    for role in roles:
      if match := re.search(rf'\b{role}=(\{{[^}}]*\}}|%?[\w.\-]+)', self.attributes):
        names += re.findall(r'[\w.\-]+', match[1])
    return names


Computation = dict[str, Instruction]


@dataclasses.dataclass(frozen=True)
class Module:
  """A compiled program."""
  computations: dict[str, Computation]
  entry: str  # the name of the entry computation
  devices: int  # the number of devices that run it

  def executed(self) -> Iterator[tuple[Computation, Instruction, int]]:
    """Yields (its computation, instruction, times) of each instruction that one step runs. A fusion is one instruction.

    Every branch of a conditional counts once.
    """
    yield from self._walk(self.entry, 1)

  def _walk(self, name, times):
    computation = self.computations[name]
    for instruction in computation.values():
      yield computation, instruction, times
      if instruction.opcode == 'while':
        for body in instruction.called('body'):
          yield from self._walk(body, times * self.trip_count(computation, instruction))
      elif instruction.opcode in ('call', 'conditional', 'async-start'):
        for inner in instruction.called('calls', 'to_apply', 'branch_computations'):
          yield from self._walk(inner, times)

  def fused(self, instruction: Instruction) -> Iterator[tuple[Computation, Instruction]]:
    """Yields (its computation, instruction) of the instructions inside a fusion, including nested fusions."""
    if instruction.opcode == 'fusion':
      for name in instruction.called('calls'):
        for inner in self.computations[name].values():
          yield self.computations[name], inner
          yield from self.fused(inner)

  def trip_count(self, computation: Computation, loop: Instruction) -> int:
    """How often the body of a while loop runs.

    It is read from XLA's annotation if there is one, else from the condition, which must compare a counter that starts
    at 0 with a constant. The counter of a loop that XLA unrolled increases by more than one.

    Raises:
      ValueError: the condition has another form.
    """
    if match := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
      return int(match[1])
    condition = self.computations[loop.called('condition')[0]]
    root = next(instruction for instruction in condition.values() if instruction.root)
    operands = [condition[name] for name in root.operands]  # of a comparison, or of a fusion that contains one
    limits = [int(i.attributes) for i in operands if i.opcode == 'constant' and i.attributes.isdigit()]
    if len(limits) != 1:
      raise ValueError(f'trip count of {loop.name}: expected a condition that compares with a constant')
    counters = [re.search(r'index=(\d+)', i.attributes) for i in operands if i.opcode == 'get-tuple-element']
    step = self._step(loop.called('body')[0], int(counters[0][1])) if counters else 1
    return -(-limits[0] // step)

  def _step(self, body: str, place: int) -> int:
    """The constant that a loop's body adds to element `place` of its tuple; 1 if that is not a plain addition."""
    computation = self.computations[body]
    root = next(instruction for instruction in computation.values() if instruction.root)
    if root.opcode != 'tuple' or (counted := computation[root.operands[place]]).opcode != 'add':
      return 1
    added = [computation[name] for name in counted.operands]
    steps = [int(i.attributes) for i in added if i.opcode == 'constant' and i.attributes.isdigit()]
    return steps[0] if len(steps) == 1 else 1


def parse(text: str) -> Module:
  """Parses the text of a module, as `jax.stages.Compiled.as_text` returns it."""
  computations, entry, current = {}, '', None
  for line in text.splitlines():
    if line.startswith('}') and not line.startswith('}}'):  # '}}' ends a kernel's attributes, which span several lines
      current = None
    elif current is None:
      if match := _COMPUTATION.match(line):
        current = computations.setdefault(match[2], {})
        entry = match[2] if match[1] else entry
    elif match := _INSTRUCTION.match(line):
      instruction = _instruction(match, line[match.end():])
      current[instruction.name] = instruction
  header = text.partition('\n')[0]
  counts = [int(n) for n in re.findall(r'(?:num_partitions|replica_count)=(\d+)', header)]
  return Module(computations, entry, math.prod(counts))


def _instruction(match, rest):
  end = _closing(rest, 0) + 1 if rest.startswith('(') else rest.index(' ')
  shape, rest = rest[:end], rest[end:].lstrip()
  opcode, _, rest = rest.partition('(')
  end = _closing('(' + rest, 0) - 1
  inside, attributes = rest[:end], rest[end + 1:].lstrip(', ')
  if opcode in ('constant', 'parameter'):
    return Instruction(match[2], opcode, shape, (), inside, bool(match[1]))
  return Instruction(match[2], opcode, shape, tuple(re.findall(r'%([\w.\-]+)', inside)), attributes, bool(match[1]))


def _closing(text, start):
  """The index of the parenthesis that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += {'(': 1, ')': -1}.get(text[i], 0)
    if depth == 0:
      return i
  raise ValueError(f'unbalanced parentheses: {text[:80]}')


def arrays(shape: str) -> list[Array]:
  """The arrays of a shape in HLO's notation, with tuples flattened."""
  return [Array(dtype, tuple(int(n) for n in dims.split(',') if n), layout)
          for dtype, dims, layout in _ARRAY.findall(shape)]


def _bits(dtype):
  if dtype in _BITS:
    return _BITS[dtype]
  return int(re.match(r'[a-z]+(\d+)', dtype)[1])
