"""One dial: a ViT on Fashion-MNIST whose depth sets width, heads, length, batch, learning rate and weight decay.

  python -m vit_jax.main --config=configs/ladder.py:depth=1
  python -m vit_jax.main --config=configs/ladder.py:depth=2,law=experiments/fashion_mnist_law/results/law.json

`vit_jax/sweeps/dial.py` has the rules, each with its source. The length is D*(N), by default of the law of
experiments/fashion_mnist_law, which was fitted to 11 to 340 thousand parameters and does not identify its exponents:
use your own from depth 3 on. rates=FILE takes the law.json of tuned learning rates. Not run: no result.

The tuned run is the ladder's of experiments/fashion_mnist_law: width 64, three layers, 4,000 steps of 64 at a rate of
0.2 / width. Weight decay is that of configs/fashion_mnist.py: 1 / (rate x decay) is 0.3 of all steps.
"""

import os
import pathlib

from vit_jax import config
from vit_jax.sweeps import dial

ARGS = str
LAW = pathlib.Path(__file__).parents[1] / 'experiments/fashion_mnist_law/results/law.json'
REFERENCE = dial.Reference(width=64, depth=3, examples=4_000 * 64, batch_size=64, learning_rate=0.2 / 64,
                           timescale=0.3, warmup=0.05)


def get_config(arg='depth=1'):
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool = 7, 'gap'
  c.data.source, c.data.image_size, c.data.channels, c.data.num_classes = 'fashion_mnist', (28, 28), 1, 10
  c.data.augment.flip = True
  c.schedule.name = 'wsd'
  c.evaluate.every, c.evaluate.batch_size = 1_000, 500
  dial.turn(c, arg, REFERENCE, os.fspath(LAW))
  return c
