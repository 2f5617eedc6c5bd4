"""Tests run on eight fake CPU devices, and any silent promotion of types or ranks is an error."""

import gc
import os

import compiled
import in_turn
import jax
import pytest
import touches_jax

from vit_jax import config

COMPILED = 'JAX_COMPILATION_CACHE_DIR'
SHARE_RUNS = ('tests/faults', 'tests/inspection')  # a session's fixture serves several files
SHARE_NOTHING = ('tests/models/test_vit.py', 'tests/models/test_families.py', 'tests/rehearsal/test_compiler.py')
os.environ.pop('PYTHONDONTWRITEBYTECODE', None)  # hundreds of processes are started: none is to compile JAX's sources

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')

# Tiny programs are compiled a thousand times, here and by the programs that tests start: that they are compiled quickly
# matters more than how well they run. command_line.AS_USERS is for what is to run as users have it.
QUICKLY = ['--xla_backend_optimization_level=0', '--xla_cpu_parallel_codegen_split_count=1']
if jax.__version_info__ <= (0, 10, 2):  # newer ones do not know the flag
  QUICKLY.append('--xla_cpu_use_fusion_emitters=false')
os.environ['XLA_FLAGS'] = ' '.join((os.environ.get('XLA_FLAGS', ''), *QUICKLY))
gc.set_threshold(200_000, 20, 100)  # tracing makes and drops millions of small objects


def pytest_addoption(parser):
  in_turn.addoption(parser)


def pytest_configure(config):
  """What one test, or a program that it starts, has compiled, the next need not compile again."""
  if not hasattr(config, 'workerinput'):  # what starts the workers, which inherit its environment
    config.compiled = compiled.folder()
    os.environ[COMPILED] = str(config.compiled[0])
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
  jax.config.update('jax_compilation_cache_dir', os.environ[COMPILED])
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)


def pytest_unconfigure(config):
  if hasattr(config, 'compiled'):
    os.environ.pop(COMPILED)
    compiled.close(*config.compiled)


@pytest.hookimpl(tryfirst=True)  # before -m chooses by marks
def pytest_collection_modifyitems(config, items):
  for item in items:
    if touches_jax.touches_jax(item.path):
      item.add_marker('jax')
  in_turn.deselect(config, items)
  # Files with slow tests first, then what compiles: short ones at the end keep all workers busy until the last.
  slow, jaxes = ({item.path for item in items if item.get_closest_marker(mark)} for mark in ('slow', 'jax'))
  items.sort(key=lambda item: (item.path not in slow, item.path not in jaxes))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """A file's tests on one worker, and those of a folder with runs of its own: what they share is made once."""
  from xdist.scheduler import LoadScopeScheduling

  class ByFile(LoadScopeScheduling):

    def _split_scope(self, nodeid):
      path, _, test = nodeid.partition('::')
      folder = path.rpartition('/')[0]
      if folder in SHARE_RUNS:
        return folder
      return nodeid if path in SHARE_NOTHING else path

  return ByFile(config, log)


@pytest.fixture
def tiny_config():
  """A recipe that compiles in a second or two: 16 steps of a two-layer ViT on the digits."""
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool = 4, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 16, 2, 32, 8
  c.data.batch_size = 32
  c.train.steps = 16
  c.optimizer.learning_rate = 1e-2
  c.evaluate.every, c.system.log_every = 4, 2
  return c
