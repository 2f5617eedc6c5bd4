"""Settings of the host process."""

import platform
import subprocess
import sys

import command_line
import pytest

from vit_jax import host

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


# What XLA is asked for by a program that is compiled after `system.deterministic` has taken effect.
OPTIONS = '''
import sys
import jax
from jax._src import compiler, xla_bridge
from vit_jax import host
assert not xla_bridge.backends_are_initialized()
host.use_deterministic_ops()
host.use_deterministic_ops(False)
jax.jit(lambda x: x + 1)(1)
host.keep_autotuning(sys.argv[1])
options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
build = options.executable_build_options
print(build.debug_options.xla_gpu_per_fusion_autotune_cache_dir)
jax.jit(lambda x: x + 2)(1)
'''


def test_what_xla_is_asked_for_on_gpus(tmp_path):
  """The flag is one that XLA knows, or it would end the process; and no program is kept beside the measurements."""
  environment = {name: value for name, value in command_line.ON_CPU.items() if name != 'XLA_FLAGS'}
  said = subprocess.check_output([sys.executable, '-c', OPTIONS, tmp_path / 'autotuning'], cwd=command_line.ROOT,
                                 env=environment, text=True).strip()
  assert said == f'{tmp_path}/autotuning/xla_gpu_per_fusion_autotune_cache_dir'
  assert [path.name for path in tmp_path.rglob('*')] == ['autotuning', 'xla_gpu_per_fusion_autotune_cache_dir']


def test_deterministic_operations_are_asked_for_once(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_dump_to=here')
  host.use_deterministic_ops(False)
  assert host.os.environ['XLA_FLAGS'] == '--xla_dump_to=here'
  for _ in range(2):
    host.use_deterministic_ops()
  assert host.os.environ['XLA_FLAGS'] == '--xla_dump_to=here --xla_gpu_deterministic_ops=true'


STARTS = '''
import os, sys
from jax._src import xla_bridge
from vit_jax.training import start
def prepare(config, *_):
  raise SystemExit(f'{config.system.deterministic} {os.environ["XLA_FLAGS"]}')
start.prepare = prepare
started = xla_bridge.backends
def backends():
  assert 'deterministic' in os.environ.get('XLA_FLAGS', ''), 'JAX has started before the flags were set'
  return started()
xla_bridge.backends = backends
import runpy
sys.argv = ['vit_jax.main', '--config=quickstart', '--config.system.deterministic']
runpy.run_module('vit_jax.main', run_name='__main__')
'''


def test_the_flag_is_set_before_jax_starts():
  environment = {name: value for name, value in command_line.ON_CPU.items() if name != 'XLA_FLAGS'}
  done = subprocess.run([sys.executable, '-c', STARTS], cwd=command_line.ROOT, env=environment, text=True,
                        capture_output=True)
  assert done.stderr.strip() == 'True --xla_gpu_deterministic_ops=true', done.stderr
