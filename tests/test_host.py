"""What the programs ask of the machine that they run on."""

import platform
import subprocess
import sys

import command_line
import pytest

# Page faults of a call whose buffers are of 32 MB each, after a few that made room for them.
FAULTS = '''
import resource, sys
import jax, jax.numpy as jnp
from vit_jax import host
if sys.argv[1] == 'keep':
  host.keep_freed_memory()
call = jax.jit(lambda x: ((jnp.tanh(x) @ x.T) @ x).sum())
call = host.compile_step(call.lower(jnp.ones((2048, 4096))), 'cpu')
x = jnp.ones((2048, 4096))
for i in range(6):
  if i == 3:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  call(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 3)
'''


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='another malloc')
def test_a_call_finds_the_memory_of_the_last_one():
  faults = {which: int(subprocess.check_output([sys.executable, '-c', FAULTS, which], cwd=command_line.ROOT,
                                               env=command_line.ON_CPU)) for which in ('default', 'keep')}
  assert faults['keep'] < faults['default'] / 4, faults
