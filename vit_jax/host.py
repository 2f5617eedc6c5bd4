"""The machine that a process runs on: its allocator and threads, its parent, and a TPU library without a TPU."""

import ctypes
import importlib.util
import os
import pathlib
import signal
import sys
from typing import Any

# What libtpu otherwise asks the machine or its metadata server, answered for a machine without a TPU; no log files, no
# lock against a second process. On a machine with a TPU these would switch off the detection of its cluster.
WITHOUT_TPU = {
    'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-16', 'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_WORKER_ID': '0', 'TPU_LOG_DIR': 'disabled', 'TPU_MIN_LOG_LEVEL': '3', 'TPU_STDERR_LOG_LEVEL': '3',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
  """Lets glibc's malloc keep what a step frees for the next step; elsewhere nothing is done.

  XLA's CPU backend allocates and frees each large buffer once a step. By default malloc gives such memory back to the
  system, and the next step's page faults take up to a third of its time (experiments/allocator). Only the main thread's
  memory can grow at will: others map each large buffer anew. So that programs get theirs from it, they run on the
  thread that calls them, where JAX would start them on another; several devices always have a thread each.
  To be called before JAX starts.
  """
  libc = _libc()
  if not libc:
    return
  for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 << 20)):
    libc.mallopt(parameter, value)
  import jax
  jax.config.update('jax_cpu_enable_async_dispatch', False)


def _libc():
  """glibc, or None where another one runs."""
  try:
    libc = ctypes.CDLL(None)
  except (OSError, TypeError):
    return None
  return libc if hasattr(libc, 'mallopt') and hasattr(libc, 'malloc_trim') else None


def in_turn(out: Any) -> Any:
  """The results of a jitted function, waited for on several CPU devices: for calls that do not depend on each other.

  XLA's CPU devices share one pool of threads. With many calls in flight, later ones can hold the threads for which an
  all-reduce of the first is waiting; after 40 seconds XLA then ends the process.
  """
  import jax
  return jax.block_until_ready(out) if jax.default_backend() == 'cpu' and jax.device_count() > 1 else out


# Of YNN, a library of kernels that XLA calls, the sums alone: with XLA's own matmuls a whole step is faster
# (experiments/speed).
_ON_CPU = {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_REDUCE'}


def compile_step(lowered: Any, platform: str) -> Any:
  """A lowered training step (jax.stages.Lowered), compiled with what makes it faster on these devices.

  What the compiler has freed goes back to the system: hundreds of MB in its threads' heaps, where no step would use it.
  """
  compiled = _compiled(lowered, platform)
  if libc := _libc():
    libc.malloc_trim(0)
  return compiled


def _compiled(lowered, platform):
  import jax
  if platform == 'cpu':
    try:
      return lowered.compile(compiler_options=_ON_CPU)
    except jax.errors.JaxRuntimeError as error:
      if 'compile option' not in str(error):  # another JAX, which has it no more
        raise
  return lowered.compile()


def die_with(parent: int) -> None:
  """SIGKILL for this process when the one of that number, its parent, ends, however it ends (Linux)."""
  if sys.platform == 'linux':
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
  if os.getppid() != parent:  # it ended before
    sys.exit(1)


def hush_absent_tpu() -> None:
  """Keeps libtpu quiet where it is installed (for planning) but no TPU is: JAX looks for one at every start.

  Otherwise it prints errors, and of two processes one fails to get its lock. To be called before JAX starts.
  """
  if importlib.util.find_spec('libtpu') and not has_tpu():
    for name, value in WITHOUT_TPU.items():
      os.environ.setdefault(name, value)


def has_tpu() -> bool:
  """Whether a device of Google's (PCI vendor 0x1ae0) is in this machine."""
  return any(path.read_text().strip() == '0x1ae0' for path in pathlib.Path('/sys/bus/pci/devices').glob('*/vendor'))
