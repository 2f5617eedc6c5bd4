"""Which errors mean that another process is gone: texts that backends have given, and errors that would come again."""

import jax
import pytest

from vit_jax.errors import UserError
from vit_jax.parallel import processes

_GLOO = 'Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.3]:51'
_TASK = 'Task /job:jax_worker/replica:0/task:37 heartbeat timeout. This indicates that the remote task has failed'
LOSSES = [  # each as JAX's own error and as a ValueError, the class in which gloo's often comes
    f'UNKNOWN: {_GLOO}',
    f'FAILED_PRECONDITION: Buffer Definition Event: {_GLOO}',
    'UNKNOWN: Gloo all-gather failed: [external/gloo/gloo/transport/tcp/pair.cc:492] Read error [10.0.0.3]:6456: '
    'Connection reset by peer',
    'INTERNAL: NCCL operation ncclGroupEnd() failed: remote process exited or there was a network error',
    # jax issue 22747
    'INTERNAL: external/xla/xla/service/gpu/nccl_utils.cc:305: NCCL operation ncclCommInitRank(&comm, nranks, id, '
    "rank) failed: unhandled system error (run with NCCL_DEBUG=INFO for details). Last NCCL warning(error) log entry "
    "(may be unrelated) 'socketTryAccept: Accept failed: Bad file descriptor'.",
    f'UNAVAILABLE: {_TASK}, got preempted, or crashed unexpectedly.',  # a log of T5X on TPUs
    'DEADLINE_EXCEEDED: Barrier timed out. Id: sync_global_devices:3. This usually happens because a task triggered '
    'the barrier too early or too slowly.',
    'UNAVAILABLE: failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.2:8476: Failed to connect to '
    'remote host: Connection refused',
    'ABORTED: The TPU slice is unhealthy: a worker was preempted',
]
OTHERS = [
    UserError('--distributed=10.0.0.2:8476: the processes did not come together: connection refused'),
    UserError('data.batch_size=100: must be a multiple of 8 (8 batch shards of the mesh), such as 96 or 104'),
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 16106127360 bytes.'),
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space '
                               'hbm. Used 17.90G of 15.48G hbm. Exceeded hbm capacity by 2.42G.'),
    jax.errors.JaxRuntimeError('INVALID_ARGUMENT: Expected parameter 0 of size 64, got a buffer of size 32'),
    jax.errors.JaxRuntimeError('UNIMPLEMENTED: DotThunk does not support element type F8E4M3'),
    jax.errors.JaxRuntimeError('NOT_FOUND: No registered implementation for custom call to splash on platform CPU'),
    MemoryError('Unable to allocate 3.1 GiB for an array'),
    ValueError('Incompatible shapes for broadcasting: (32, 10) and (32, 1000).'),
    ValueError('all input arrays must have the same shape'),
    TypeError("unsupported operand type(s) for +: 'NoneType' and 'int'"),
    KeyError('image'),
    FileNotFoundError(2, 'No such file or directory', '/data/train.array_record'),
    OSError(28, 'No space left on device'),
]


@pytest.mark.parametrize('kind', [jax.errors.JaxRuntimeError, ValueError])
@pytest.mark.parametrize('text', LOSSES)
def test_a_lost_process(text, kind):
  assert processes.is_loss(kind(text))


@pytest.mark.parametrize('error', OTHERS, ids=lambda error: type(error).__name__)
def test_an_error_that_would_come_again(error):
  assert not processes.is_loss(error)


@pytest.fixture(name='leave')
def _leave(monkeypatch):
  """Makes the end of the process an exception."""
  def end(code):
    raise SystemExit(code)
  monkeypatch.setattr(processes.os, '_exit', end)


@pytest.mark.parametrize('error, code', [
    (jax.errors.JaxRuntimeError(f'UNAVAILABLE: {_TASK}'), 134),
    (jax.errors.JaxRuntimeError('DEADLINE_EXCEEDED: Barrier timed out. Id: PjRT_Client_Connect'), 134),
    (RuntimeError('UNAVAILABLE: failed to connect to all addresses'), 134),
])
def test_a_process_that_is_lost_while_they_come_together(error, code, leave, monkeypatch, capsys):
  def initialize(**_):
    raise error
  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  with pytest.raises(SystemExit) as end:
    processes.start('10.0.0.2:8476', 2, 1)
  assert end.value.code == code and str(error) in capsys.readouterr().err


@pytest.mark.parametrize('error', [ValueError('coordinator_address should be defined.'),
                                   RuntimeError('jax.distributed.initialize should only be called once.')])
def test_a_cluster_that_is_not_there(error, monkeypatch):
  def initialize(**_):
    raise error
  monkeypatch.setattr(jax.distributed, 'initialize', initialize)
  with pytest.raises(UserError, match='Without a cluster: --distributed=none'):
    processes.start('auto')


def test_a_process_that_is_lost_before_the_devices_are_known(leave, monkeypatch):
  """JAX then does not know how many processes there are, and says so each time that it is asked."""
  def count():
    raise jax.errors.JaxRuntimeError('DEADLINE_EXCEEDED: GetKeyValue() timed out with key: cpu:local_topology/cpu/1')
  monkeypatch.setattr(jax.distributed, 'is_initialized', lambda: True)
  monkeypatch.setattr(jax, 'process_count', count)
  with pytest.raises(SystemExit) as end, processes.leaving_at_once():
    jax.process_count()
  assert end.value.code == 134
