"""Settings of the host process: its allocator and threads, its parent process, and libtpu without a TPU."""

import ctypes
import importlib.util
import os
import pathlib
import signal
import sys
from typing import Any

# Values that libtpu otherwise requests from the machine or its metadata server, for a machine without a TPU. They also
# disable log files and the lock against a second process. With a TPU they would disable the detection of its cluster.
WITHOUT_TPU = {
    'TPU_SKIP_MDS_QUERY': '1', 'TPU_ACCELERATOR_TYPE': 'v5litepod-16', 'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_WORKER_ID': '0', 'TPU_LOG_DIR': 'disabled', 'TPU_MIN_LOG_LEVEL': '3', 'TPU_STDERR_LOG_LEVEL': '3',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h


def keep_freed_memory() -> None:
  """Makes glibc's malloc keep freed memory for the next step. Has no effect with another C library.

  XLA's CPU backend allocates and frees each large buffer once per step. By default, malloc returns such memory to the
  system, and page faults then take up to a third of the next step (experiments/allocator). Only the arena of the main
  thread can grow without limit; other threads map each large buffer anew. Programs therefore run on the thread that
  calls them, by disabling asynchronous dispatch. Several CPU devices always have a thread each.

  Must be called before JAX starts.
  """
  libc = _libc()
  if not libc:
    return
  for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, 256 << 20)):
    libc.mallopt(parameter, value)
  import jax
  jax.config.update('jax_cpu_enable_async_dispatch', False)


def _libc():
  """glibc; None with another C library."""
  try:
    libc = ctypes.CDLL(None)
  except (OSError, TypeError):
    return None
  return libc if hasattr(libc, 'mallopt') and hasattr(libc, 'malloc_trim') else None


def in_turn(out: Any) -> Any:
  """Waits for the results of a jitted function if there are several CPU devices; for calls independent of each other.

  XLA's CPU devices share a thread pool. With many calls in flight, later calls can occupy the threads that an
  all-reduce of an earlier one is waiting for. XLA then ends the process after 40 seconds.
  """
  import jax
  return jax.block_until_ready(out) if jax.default_backend() == 'cpu' and jax.device_count() > 1 else out


def cpu_options() -> dict[str, str]:
  """The compiler's options with which a step is fastest on a CPU, by the version of JAX (experiments/speed).

  Before 0.12 the library YNN is called for reductions only: XLA's own matmuls are faster. From then on the compiler's
  own choice is.
  """
  import jax
  return {} if jax.__version_info__ >= (0, 12) else dict(YNN_FOR_REDUCTIONS)


YNN_FOR_REDUCTIONS = {'xla_cpu_experimental_ynn_fusion_type': 'LIBRARY_FUSION_TYPE_REDUCE'}


def compile_step(lowered: Any, platform: str) -> Any:
  """Compiles a lowered training step (jax.stages.Lowered) with the options that are fastest on the platform.

  Memory that the compiler has freed is returned to the system. It is hundreds of MB in the heaps of the compiler's
  threads, which steps do not use.
  """
  compiled = _compiled(lowered, platform)
  if libc := _libc():
    libc.malloc_trim(0)
  return compiled


def _compiled(lowered, platform):
  import jax
  if platform == 'cpu':
    try:
      return lowered.compile(compiler_options=cpu_options())
    except jax.errors.JaxRuntimeError as error:
      if 'compile option' not in str(error):  # a version of JAX without this option
        raise
  return lowered.compile()


_DETERMINISTIC = '--xla_gpu_deterministic_ops=true'


def use_deterministic_ops(wanted: bool = True) -> None:
  """Makes XLA use only operations on GPUs that give the same bits each time, if `wanted`; others add in any order.

  Must be called before JAX starts.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if wanted and _DETERMINISTIC not in flags.split():
    os.environ['XLA_FLAGS'] = f'{flags} {_DETERMINISTIC}'.strip()


def keep_autotuning(folder: str | os.PathLike) -> None:
  """Makes XLA write what it measures on a GPU, to choose the algorithm of a product, and read what is there already.

  Two algorithms add in different orders, and measurements vary. It holds for what is compiled after it. Programs
  themselves are neither kept nor taken from another cache, as those were chosen by other measurements.
  """
  import jax
  from jax.experimental.compilation_cache import compilation_cache
  kind = 'xla_gpu_per_fusion_autotune_cache_dir'
  (pathlib.Path(folder) / kind).mkdir(parents=True, exist_ok=True)  # XLA does not make it
  jax.config.update('jax_persistent_cache_enable_xla_caches', kind)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', float('inf'))
  jax.config.update('jax_compilation_cache_dir', os.fspath(folder))
  compilation_cache.reset_cache()


def die_with(parent: int) -> None:
  """Makes the kernel kill this process when its parent process ends, however it ends (Linux only).

  Args:
    parent: the process id of the parent.
  """
  if sys.platform == 'linux':
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
  if os.getppid() != parent:  # the parent has already ended
    sys.exit(1)


def hush_absent_tpu() -> None:
  """Silences libtpu if it is installed (for planning) on a machine without a TPU.

  JAX looks for a TPU at every start. Without this, libtpu prints errors, and one of two processes fails to get its
  lock. Must be called before JAX starts.
  """
  if importlib.util.find_spec('libtpu') and not has_tpu():
    for name, value in WITHOUT_TPU.items():
      os.environ.setdefault(name, value)


def has_tpu() -> bool:
  """Whether this machine has a PCI device of Google (vendor 0x1ae0)."""
  return any(path.read_text().strip() == '0x1ae0' for path in pathlib.Path('/sys/bus/pci/devices').glob('*/vendor'))
