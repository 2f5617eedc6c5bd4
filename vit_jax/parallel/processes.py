"""One program on many hosts: how its processes find one another, and who of them writes.

Every process runs the same code on the same arguments; between them they hold one mesh. What only one may do (logs,
run.json, the screen) the writer does; what must be decided once the writer decides and sends to the others.
"""

import contextlib
import functools
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from vit_jax import durable, exits
from vit_jax.errors import UserError
from vit_jax.printable import say


def start(distributed: str, num_processes: int | None = None, process_id: int | None = None,
          heartbeat_s: int = 40) -> None:
  """Joins the processes of a run; to be called once, before JAX looks for its devices.

  Args:
    distributed: 'none': this process is all there is. 'auto': the cluster is found as JAX finds it (Cloud TPU and GKE,
      Slurm, Open MPI, Kubernetes). HOST:PORT: where process 0 listens; the next two are then needed.
    num_processes: how many there are.
    process_id: which one this is, from 0.
    heartbeat_s: a process that was not heard of for so long is dead, and the others end with exit code 134. Compiling
      does not silence a process.

  Raises:
    UserError: arguments that do not fit one another, or no cluster to be found.
  """
  by_hand = {'num_processes': num_processes, 'process_id': process_id}
  given = [f'--{name}={value}' for name, value in by_hand.items() if value is not None]
  if distributed in ('none', 'auto'):
    if given:
      raise UserError(f'{given[0]}: only with --distributed=HOST:PORT, where process 0 listens')
    if distributed == 'none':
      return
    address = {}
  else:
    host, colon, port = distributed.rpartition(':')
    if not (host and colon and port.isdigit()):
      raise UserError(f'--distributed={distributed}: expected none, auto, or HOST:PORT of process 0, such as '
                      '10.0.0.2:8476')
    if missing := [name for name, value in by_hand.items() if value is None]:
      raise UserError(f'--distributed={distributed}: --{missing[0]} is missing')
    if not 0 <= process_id < num_processes:
      raise UserError(f'--process_id={process_id}: expected 0 to {num_processes - 1}, with --num_processes='
                      f'{num_processes}')
    address = {'coordinator_address': distributed, **by_hand}
  try:
    jax.distributed.initialize(**address, heartbeat_timeout_seconds=heartbeat_s)
  except (ValueError, RuntimeError) as error:
    apart = f'--distributed={distributed}: the processes did not come together: {error}'
    if is_loss(error):
      say(f'error: {apart}', sys.stderr)
      _leave(exits.LOST)
    raise UserError(f'{apart}. Without a cluster: --distributed=none') from error


_COLLECTIVE = re.compile('Gloo [a-z-]+ failed|NCCL (operation|error)')
# How errors begin where another process is gone and JAX raises some other class than its own.
_LOST = re.compile('(UNKNOWN|INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|FAILED_PRECONDITION|CANCELLED): ')
# How the runtime's own errors begin that the next try would meet again.
_AGAIN = re.compile('(INVALID_ARGUMENT|NOT_FOUND|ALREADY_EXISTS|PERMISSION_DENIED|UNAUTHENTICATED|UNIMPLEMENTED|'
                    'OUT_OF_RANGE|DATA_LOSS): ')


def is_loss(error: BaseException) -> bool:
  """Whether an error means that another process is gone, whatever its class: a collective or the coordinator broke off.

  Of the runtime's own errors all count but those that would come again: of memory, of wrong arguments, of what is not
  implemented.
  """
  text = str(error)
  if isinstance(error, durable.Unreachable):
    return True  # not of a process, but as after such a loss the same command resumes the run
  if isinstance(error, (UserError, MemoryError)) or 'RESOURCE_EXHAUSTED' in text:
    return False
  if _COLLECTIVE.search(text):
    return True
  own = isinstance(error, jax.errors.JaxRuntimeError)
  return not _AGAIN.match(text) if own else bool(_LOST.match(text))


@contextlib.contextmanager
def leaving_at_once():
  """Ends this process at once where the body fails, if there are others.

  An orderly end would wait for them, and they wait for this one's part of the step. So they see that it is gone, and
  end too (see `start`). Exit codes: 1 for an error of this process, exits.LOST where a step failed because another one
  is gone. The same command then resumes the run.
  """
  try:
    yield
  except (Exception, KeyboardInterrupt) as error:
    if _alone():
      raise
    if isinstance(error, UserError):
      say(f'error: {error}', sys.stderr)
    else:
      traceback.print_exc()
    _leave(exits.INTERRUPTED if isinstance(error, KeyboardInterrupt) else exits.LOST if is_loss(error) else 1)


def _leave(code):
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)


def _alone():
  """Whether there are no others; JAX knows how many there are once all have told one another of their devices."""
  if not jax.distributed.is_initialized():
    return True
  try:
    return jax.process_count() == 1
  except RuntimeError:  # one was lost before
    return False


def is_writer() -> bool:
  """Whether this process writes the logs and speaks to the user."""
  return jax.process_index() == 0


def from_writer(decide: Callable[[], Any]) -> Any:
  """What `decide` gives on the writer, on every process; nothing else calls it. All processes must come here.

  Args:
    decide: returns a JSON value.

  Raises:
    UserError: on every process, where `decide` raises it.
  """
  if jax.process_count() == 1:
    return decide()
  message = {}
  if is_writer():
    try:
      message = {'value': decide()}
    except UserError as error:
      message = {'error': str(error)}
  text = np.frombuffer(json.dumps(message).encode(), np.uint8)
  length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))  # the others need to know what to receive
  text = multihost_utils.broadcast_one_to_all(text if is_writer() else np.zeros(length, np.uint8))
  message = json.loads(np.asarray(text).tobytes())
  if 'error' in message:
    raise UserError(message['error'])
  return message['value']


def all_say(text: str) -> list[str]:
  """What each process says here, in their order. All processes must come here."""
  return [text] if jax.process_count() == 1 else _gathered(text)


def agree(facts: dict[str, str]) -> None:
  """Compares what every process knows by itself, such as its config. All processes must come here, at the start.

  Args:
    facts: of this process, as text; the same names on each.

  Raises:
    UserError: on every process, where one of them knows otherwise: what differs, on which process, and its values.
  """
  if jax.process_count() == 1:
    return
  everyone = [json.loads(text) for text in _gathered(json.dumps(facts))]
  differing = []
  for name, ours in everyone[0].items():
    for process, theirs in enumerate(everyone):
      if theirs.get(name) != ours:
        differing.append(f'{name} is {theirs.get(name)} on process {process}, and {ours} on process 0')
  if differing:
    raise UserError(f'the processes of this run do not agree: {"; ".join(differing)}. Start all with the same command, '
                    'code and data')


def _gathered(text):
  """The texts of all processes, of any length, in their order."""
  words = np.frombuffer(text.encode(), np.uint8)
  lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(words)))).reshape(-1)
  padded = np.zeros(max(lengths), np.uint8)
  padded[:len(words)] = words
  everyone = np.asarray(multihost_utils.process_allgather(padded))
  return [row[:length].tobytes().decode() for row, length in zip(everyone, lengths)]


def stop_agreed(count: int) -> bool:
  """Whether all processes stop here, since one of them got SIGTERM some time ago; the same answer on each.

  Args:
    count: of the calls: 1, 2, 3, ... on every process.
  """
  return multihost_utils.reached_preemption_sync_point(count)


@functools.lru_cache
def rows(sharding: NamedSharding, batch_size: int) -> np.ndarray:
  """The rows of a global batch that are on this process's devices, in order.

  They follow one another where the mesh goes through the processes one by one; on a TPU slice it need not, as it
  follows the wires. Processes that are split along `tensor` share rows.
  """
  parts = sharding.addressable_devices_indices_map((batch_size,)).values()
  return np.unique(np.concatenate([np.arange(batch_size)[part] for part in parts]))


def place(sharding: NamedSharding, batch_size: int, local: np.ndarray) -> jax.Array:
  """The global array of `batch_size` rows, of which `local` are those that `rows` names."""
  if jax.process_count() == 1:
    return jax.device_put(local, sharding)
  mine = rows(sharding, batch_size)

  def part(index):
    first, stop, _ = index[0].indices(batch_size)
    return local[np.searchsorted(mine, first):np.searchsorted(mine, stop)]

  return jax.make_array_from_callback((batch_size, *local.shape[1:]), sharding, part)
