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
