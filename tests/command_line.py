"""The programs as a person starts them, and the small recipe that they get in the tests."""

import atexit
import functools
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from vit_jax import records

ROOT = pathlib.Path(__file__).parents[1]
ON_CPU = os.environ | {'JAX_PLATFORMS': 'cpu'}  # one device: the tests' own process has eight
AS_USERS = ON_CPU | {'XLA_FLAGS': ''}  # compiled with all optimisations
_AT_IMPORT = ('JAX_', 'XLA_', 'TPU_', 'OMP_', 'MALLOC_', 'PYTHON')  # variables that are read once, as a process starts


def recipe(*lines: str) -> str:
  """The text of a recipe file: a two-layer ViT on the digits, changed by lines such as 'c.train.steps = 60'."""
  changes = ''.join(f'  {line}\n' for line in lines)
  return f'''
from vit_jax import config

def get_config():
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool = 4, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 16, 2, 32, 2
  c.data.batch_size = 32
{changes}  return c
'''


def module(program: str) -> str:
  """The module of a program: main -> vit_jax.main."""
  return f'vit_jax.{program}'


def command(program: str, *flags: str) -> list[str]:
  """The words that start vit_jax.PROGRAM."""
  return [sys.executable, '-m', module(program), *map(str, flags)]


def run_process(program: str, *flags: str, env: dict[str, str] = ON_CPU, cwd=ROOT) -> subprocess.CompletedProcess:
  """A program run to its end in a new process, with what it printed as text."""
  return subprocess.run(command(program, *flags), capture_output=True, text=True, cwd=cwd, env=env)


def run(program: str, *flags: str, env: dict[str, str] = ON_CPU, cwd=ROOT) -> subprocess.CompletedProcess:
  """As run_process, in a fork of a process that has made the imports: see fork_server.py."""
  if _at_import(env) != _at_import(ON_CPU):
    return run_process(program, *flags, env=env, cwd=cwd)
  with tempfile.TemporaryDirectory(prefix='vit_jax-run-') as folder:
    out, err = (pathlib.Path(folder) / name for name in ('out', 'err'))
    request = {'module': module(program), 'arguments': list(map(str, flags)), 'env': env, 'cwd': str(cwd),
               'out': str(out), 'err': str(err)}
    server = _server()
    print(json.dumps(request), file=server.stdin, flush=True)
    code = int(server.stdout.readline())
    return subprocess.CompletedProcess(command(program, *flags), code, out.read_text(), err.read_text())


def _at_import(env):
  return {name: value for name, value in env.items() if name.startswith(_AT_IMPORT)}


@functools.cache
def _server():
  server = subprocess.Popen([sys.executable, ROOT / 'tests' / 'fork_server.py'], cwd=ROOT, text=True,
                            env=ON_CPU | {'PYTHONPATH': os.pathsep.join((str(ROOT), ON_CPU.get('PYTHONPATH', '')))},
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)

  def stop():
    server.stdin.close()
    server.wait()

  atexit.register(stop)
  return server


def final_arrays(workdir: pathlib.Path) -> dict[str, bytes]:
  """Every array of a run's newest checkpoint, saved by any number of processes. Raises ValueError for some damage."""
  import jax
  import numpy as np
  from orbax import checkpoint as ocp
  path = (workdir / records.CHECKPOINTS / str(records.saved_steps(workdir)[-1]) / 'state').absolute()
  reader = ocp.PyTreeCheckpointer()
  found = reader.metadata(path).item_metadata
  if found is None:
    raise ValueError(f'{path}: its list of arrays cannot be read')
  on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), found.tree)
  tree = reader.restore(path, restore_args=on_host)
  return {jax.tree_util.keystr(p): np.asarray(a).tobytes() for p, a in jax.tree_util.tree_leaves_with_path(tree)}
