"""How long a start takes to read the index of 14 million pictures, and how much of it: on made-up names and labels.

  python experiments/data_index/measure.py

The names are as ImageNet-21k's (n01440764_10026.JPEG), with as many classes and pictures; no picture is made. Each
index is read by five processes, one after the other. The load is what the machine had to do before each of them.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from vit_jax.data import index as index_lib

PICTURES, CLASSES, TIMES = 14_197_122, 21_841, 5


def make(folder: str) -> None:
  """Writes the index of a folder of pictures, and of a shuffled TFDS data set."""
  rng = np.random.default_rng(0)
  labels = np.sort(rng.integers(0, CLASSES, PICTURES, np.int32))
  numbers = np.sort(rng.integers(0, 200_000, PICTURES))  # of a picture; in a class they are sorted as text
  names = [f'n{10_000_000 + label * 37}_{number}.JPEG' for label, number in zip(labels.tolist(), numbers.tolist())]
  sizes = rng.lognormal(11.3, 0.6, PICTURES).astype(np.int64)
  header = {'class_names': [f'n{10_000_000 + i * 37}' for i in range(CLASSES)], 'image_size': None, 'fingerprints': {
      index_lib.positions(np.arange(PICTURES)): '0123456789abcdef'}}
  index_lib.write(folder, 'folder', '', labels, names=names, sizes=sizes, **header)
  index_lib.write(folder, 'tfds', '', rng.permutation(labels), **header)


def read(folder: str, split: str) -> None:
  """Does what a start does: labels, the fingerprint, and the names of folders; prints what it took."""
  load = os.getloadavg()[0]
  started, busy = time.perf_counter(), time.process_time()
  index = index_lib.read(folder, split, '')
  labels = index.labels
  known = index.fingerprint(np.arange(len(labels)))
  name = index.name(7) if split == 'folder' else ''
  seconds, busy = time.perf_counter() - started, time.process_time() - busy
  print(f'{split}: {len(labels):,} labels{" and names" if name else ""}, fingerprint {known}: {seconds:.1f} s '
        f'({busy:.1f} s of CPU), from a file of {index.path.stat().length / 1e6:.1f} MB; peak memory '
        f'{_peak_mb():.0f} MB, load {load:.1f}')


def _processor():
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  return next(line.partition(': ')[2] for line in lines if line.startswith('model name'))


def _peak_mb():
  """Of this process alone, as Linux counts it."""
  status = pathlib.Path('/proc/self/status').read_text().splitlines()
  return int(next(line for line in status if line.startswith('VmHWM')).split()[1]) / 1e3


if __name__ == '__main__':
  if len(sys.argv) > 1:
    read(*sys.argv[1:])
  else:
    print(f'{os.cpu_count()} cores of {_processor()}, Python {sys.version.split()[0]}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
      make(folder)
      for split in ('tfds', 'folder') * TIMES:
        subprocess.run([sys.executable, __file__, folder, split], check=True)
