"""The process of one job: python -m vit_jax.sweeps.child PARENT CORES FOLDER ARGUMENTS... (those of vit_jax.main)

It runs vit_jax.main on its share of the cores, holds the folder's lock while it lives, and dies with its parent.
"""

import ctypes
import os
import runpy
import signal
import sys
from pathlib import Path

from vit_jax.lock import BUSY, take


def main(parent: str, cores: str, folder: str, *arguments: str) -> None:
  _die_with(int(parent))
  if cores and hasattr(os, 'sched_setaffinity'):
    os.sched_setaffinity(0, map(int, cores.split(',')))
  lock = take(Path(folder))
  if lock is None:
    sys.exit(BUSY)
  sys.argv = ['vit_jax.main', *arguments]
  runpy.run_module('vit_jax.main', run_name='__main__', alter_sys=True)


def _die_with(parent):
  """SIGKILL for this process when its parent ends, however it ends: two processes must never share a folder."""
  if sys.platform == 'linux':
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
  if os.getppid() != parent:  # it ended before
    sys.exit(1)


if __name__ == '__main__':
  main(*sys.argv[1:])
