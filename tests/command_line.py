"""The programs as a person starts them, and the small recipe that they get in the tests."""

import os
import pathlib
import subprocess
import sys

import numpy as np

from vit_jax import records

ROOT = pathlib.Path(__file__).parents[1]
ON_CPU = os.environ | {'JAX_PLATFORMS': 'cpu'}  # one device: the tests' own process has eight
AS_USERS = ON_CPU | {'XLA_FLAGS': ''}  # compiled with all optimisations


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


def command(program: str, *flags: str) -> list[str]:
  """The words that start vit_jax.PROGRAM."""
  return [sys.executable, '-m', f'vit_jax.{program}', *flags]


def run(program: str, *flags: str, env: dict[str, str] = ON_CPU) -> subprocess.CompletedProcess:
  """A program run to its end, with what it printed as text."""
  return subprocess.run(command(program, *flags), capture_output=True, text=True, cwd=ROOT, env=env)


def final_arrays(workdir: pathlib.Path) -> dict[str, bytes]:
  """Every array of a run's newest checkpoint."""
  import jax
  from orbax import checkpoint as ocp
  path = workdir / records.CHECKPOINTS / str(records.saved_steps(workdir)[-1]) / 'state'
  tree = ocp.StandardCheckpointer().restore(path.absolute())
  return {jax.tree_util.keystr(p): np.asarray(a).tobytes() for p, a in jax.tree_util.tree_leaves_with_path(tree)}
