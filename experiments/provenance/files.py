"""What the fingerprint of a large folder of pictures costs, and what is shown while it is slow.

  python experiments/provenance/files.py --files=50000
"""

import io
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags
from PIL import Image
from startup import processor

_FILES = flags.DEFINE_integer('files', 50_000, 'How many pictures are written.', 100)
_CLASSES = 50
_BAR = '''
import sys
from vit_jax.data import fingerprint, pipeline
from vit_jax.data.config import DataConfig
fingerprint._PATIENCE_S = -1  # as on a file system that is slow
pipeline.open_data(DataConfig(source=f'folder:{sys.argv[1]}', image_size=(32, 32), channels=3)).fingerprint('train')
'''


def write(folder, count):
  """Writes pictures of a few contents, in one folder for each class."""
  rng, contents = np.random.default_rng(0), []
  for _ in range(20):
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(buffer, 'JPEG')
    contents.append(buffer.getvalue())
  for i in range(count):
    place = folder / f'class{i % _CLASSES:02d}'
    if i < _CLASSES:
      place.mkdir(parents=True)
    (place / f'{i:07d}.jpg').write_bytes(contents[i * 7 % 20])


def once(folder):
  """Seconds of opening the folder and of the fingerprints of its three splits."""
  from vit_jax.data import pipeline
  from vit_jax.data.config import DataConfig
  begun = time.perf_counter()
  data = pipeline.open_data(DataConfig(source=f'folder:{folder}', image_size=(32, 32), channels=3))
  opened = time.perf_counter()
  digests = [data.fingerprint(split) for split in pipeline.SPLITS]
  return opened - begun, time.perf_counter() - opened, digests


def main(_):
  os.environ['JAX_PLATFORMS'] = 'cpu'
  print(f'{processor()}; Python {platform.python_version()}')
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder) / 'pictures'
    write(folder, _FILES.value)
    for i in range(3):
      opened, took, digests = once(folder)
      print(f'{_FILES.value:,} files, time {i + 1}: opened in {opened:.2f} s, fingerprinted in {took:.2f} s: {digests}')
    done = subprocess.run([sys.executable, '-c', _BAR, str(folder)], capture_output=True, text=True, check=True)
    print(f'where it is slow, on stderr: {done.stderr.strip()}')


if __name__ == '__main__':
  app.run(main)
