"""HBM traffic of a compiled program, and the bytes that it keeps in HBM for the backward pass."""

from collections.abc import Iterator

from vit_jax.rehearsal.hlo import Array, Computation, Instruction, Module

# Opcodes that move nothing themselves: names for memory, control flow (whose bodies are counted), ends of asynchronous
# operations.
_FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'conditional', 'call', 'after-all',
         'partition-id', 'replica-id', 'optimization-barrier', 'async-start', 'async-update', 'async-done',
         'add-dependency', 'domain'}


def hbm_bytes(module: Module) -> int:
  """Bytes that one device reads from and writes to HBM per step, summed over the arrays of each instruction.

  For an operand that is only sliced, the slices are counted; for a buffer that is updated in place, the update. Arrays
  that the compiler keeps in memory near the cores are not counted. This is an estimate, as caches and repeated reads
  inside a fusion are unknown.
  """
  return sum(times * moved(module, computation, instruction)
             for computation, instruction, times in module.executed())


def moved(module: Module, computation: Computation, instruction: Instruction) -> int:
  """What one execution of an instruction adds to `hbm_bytes`."""
  opcode = instruction.opcode
  if opcode in _FREE or opcode.endswith('-done'):
    return 0
  operands = [computation[name] for name in instruction.operands if name in computation]
  if opcode == 'fusion':
    body = module.computations[instruction.called('calls')[0]]
    return _read_by_fusion(module, body, operands) + _written_by_fusion(body, instruction)
  if opcode in ('copy-start', 'slice-start'):  # (target, source, ...) and ((source), target, ...)
    source, target = operands[0].arrays[0], instruction.arrays[0 if opcode == 'copy-start' else 1]
    return target.bytes * ((source.space == 0) + (target.space == 0))
  if opcode in ('dynamic-slice', 'slice', 'gather'):
    return _bytes(instruction.arrays) + min(_bytes(instruction.arrays), _bytes(operands[0].arrays))
  if opcode in ('dynamic-update-slice', 'scatter'):
    return 2 * _bytes(operands[-1 if opcode == 'scatter' else 1].arrays)
  if opcode == 'custom-call' and 'AllocateBuffer' in instruction.attributes:
    return 0
  if opcode in ('send', 'recv'):  # (array, context, token): only the array is moved
    return _bytes(instruction.arrays[:1])
  results = instruction.arrays
  if opcode.endswith('-start'):  # an asynchronous collective returns its operands followed by its results
    results = results[len(operands):]
  return _bytes(results) + sum(_bytes(operand.arrays) for operand in operands)


def _bytes(arrays):
  return sum(array.bytes for array in arrays if array.space == 0)


def _read_by_fusion(module: Module, body: Computation, operands: list[Instruction]) -> int:
  parameters = (i for i in body.values() if i.opcode == 'parameter')
  wholes = ((parameter, _bytes(operands[int(parameter.attributes)].arrays)) for parameter in parameters)
  return sum(_read(module, body, parameter.name, whole) for parameter, whole in wholes if whole)


def _read(module: Module, body: Computation, name: str, whole: int) -> int:
  """How many of the `whole` bytes of a value are read in a fusion's body, which may contain fusions."""
  total, users = 0, list(_users(body, name))
  for user, operand in users:
    if user.opcode in ('dynamic-slice', 'slice'):
      total += _all_bytes(user)
    elif user.opcode == 'fusion':
      inner = module.computations[user.called('calls')[0]]
      places = [str(place) for place, other in enumerate(user.operands) if other == operand]
      total += sum(_read(module, inner, i.name, whole) for i in inner.values()
                   if i.opcode == 'parameter' and i.attributes in places)
    elif not _updates(user, name, body):
      return whole
  return min(whole, total) if users else whole


def _written_by_fusion(body: Computation, fusion: Instruction) -> int:
  root = next(i for i in body.values() if i.root)
  parts = [body[name] for name in root.operands] if root.opcode == 'tuple' else [root]
  if len(parts) != len(fusion.arrays):
    return _bytes(fusion.arrays)
  total = 0
  for part, array in zip(parts, fusion.arrays):
    while part.opcode == 'bitcast':
      part = body[part.operands[0]]
    if array.space == 0:
      total += _all_bytes(body[part.operands[1]]) if part.opcode == 'dynamic-update-slice' else array.bytes
  return total


def _users(body: Computation, name: str) -> Iterator[tuple[Instruction, str]]:
  """Yields (instruction, the operand) of what reads a value, directly or through bitcasts."""
  for instruction in body.values():
    if name in instruction.operands:
      if instruction.opcode == 'bitcast':
        yield from _users(body, instruction.name)
      else:
        yield instruction, name


def _updates(user, name, body):
  """Whether `user` only updates a slice of the value `name`."""
  target = body[user.operands[0]] if user.opcode == 'dynamic-update-slice' else None
  return target is not None and (target.name == name or target.opcode == 'bitcast')


def _all_bytes(instruction):
  return sum(array.bytes for array in instruction.arrays)


def saved_for_backward(module: Module) -> int:
  """Bytes of the arrays that the forward pass over the layers stacks for the backward pass.

  These are the arrays that a forward loop returns with one slice per iteration. A forward loop is recognised by the
  name that JAX gives it in the metadata. Unrolled layers have no such loop, and the result is 0.
  """
  loops = {}
  for computation, instruction, _ in module.executed():
    path = instruction.attributes.partition('op_name="')[2].partition('"')[0]
    if instruction.opcode == 'while' and 'jvp(' in path and 'transpose(' not in path:
      loops[instruction.name] = sum(array.bytes for array in _stacked(module, computation, instruction))
  return sum(loops.values())


def _stacked(module: Module, computation: Computation, loop: Instruction) -> Iterator[Array]:
  rounds, body = module.trip_count(computation, loop), module.computations[loop.called('body')[0]]
  root = next(i for i in body.values() if i.root)
  for index, (name, array) in enumerate(zip(root.operands, loop.arrays)):
    result = body[name]
    unchanged = result.opcode == 'get-tuple-element' and f'index={index}' in result.attributes.split(',')[0] and (
        body[result.operands[0]].opcode == 'parameter')
    if not unchanged and len(array.shape) > 1 and array.shape[0] == rounds and array.space == 0:
      yield array
