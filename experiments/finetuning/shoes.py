"""Pictures to fine-tune on and a small pre-trained ViT to start from, both from Fashion-MNIST.

  python experiments/finetuning/shoes.py --out=runs/shoes

Writes OUT/pictures, 250 PNG files of each of four classes, and OUT/pretrained, the run of a ViT that has seen classes
0 to 7 of Fashion-MNIST: sandals and sneakers, but neither bags nor ankle boots. About a minute on two cores.
"""

import pathlib

import numpy as np
import transfer
from absl import app, flags, logging

_OUT = flags.DEFINE_string('out', 'runs/shoes', 'Where the pictures and the run go.')
CLASSES, EACH = {'sandal': 5, 'sneaker': 7, 'bag': 8, 'ankle_boot': 9}, 250


def write_pictures(folder):
  """FOLDER/CLASS/N.png, of the test pictures, which the pre-trained model has not seen."""
  from PIL import Image

  from vit_jax.data import sources
  from vit_jax.data.config import DataConfig
  test = sources.open_sources(DataConfig('fashion_mnist'))['test']
  for name, label in CLASSES.items():
    (folder / name).mkdir(parents=True, exist_ok=True)
    for i in np.flatnonzero(test.labels == label)[:EACH]:
      Image.fromarray(test.images[i, ..., 0]).save(folder / name / f'{i:04}.png')


def main(_):
  from vit_jax import host
  host.hush_absent_tpu()
  logging.set_verbosity(logging.FATAL)
  out = pathlib.Path(_OUT.value)
  write_pictures(out / 'pictures')
  transfer.pretrained(out)


if __name__ == '__main__':
  app.run(main)
