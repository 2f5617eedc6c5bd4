"""Settings of the host process."""

import platform
import subprocess
import sys

import command_line
import pytest

# Page faults when filling 64 MB that the main thread has just freed, and whether JAX runs programs on another thread.
FAULTS = '''
import ctypes, resource, sys
import jax
from vit_jax import host
if sys.argv[1] == 'keep':
  host.keep_freed_memory()
libc, size = ctypes.CDLL(None), 64 << 20
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for _ in range(2):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  place = libc.malloc(size)
  ctypes.memset(place, 1, size)
  libc.free(place)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, jax.config.values['jax_cpu_enable_async_dispatch'])
'''


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='another malloc')
def test_freed_memory_is_kept_in_the_thread_that_runs_programs():
  run = lambda which: subprocess.check_output([sys.executable, '-c', FAULTS, which], cwd=command_line.ROOT,
                                              env=command_line.ON_CPU, text=True).split()
  (default, other_thread), (kept, here) = run('default'), run('keep')
  assert int(kept) < 20 < int(default)
  assert (other_thread, here) == ('True', 'False')
