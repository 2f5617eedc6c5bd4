"""The process of one job: python -m vit_jax.sweeps.child PARENT CORES FOLDER ARGUMENTS... (those of vit_jax.main)

It runs vit_jax.main on its share of the cores, holds the lock of its folder, and ends when its parent ends.
"""

import os
import runpy
import sys
from pathlib import Path

from vit_jax import host
from vit_jax.survival.lock import BUSY, take


def main(parent: str, cores: str, folder: str, *arguments: str) -> None:
  host.die_with(int(parent))  # two processes must never share a folder
  if cores and hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, map(int, cores.split(',')))
  lock = take(Path(folder))
  if lock is None:
    sys.exit(BUSY)
  sys.argv = ['vit_jax.main', *arguments]
  runpy.run_module('vit_jax.main', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
