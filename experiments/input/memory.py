"""Images a second that one core feeds to a step from memory: indexing on the host, then flips, pad-and-crop on device.

  taskset -c 0 python experiments/input/memory.py
"""

import time

import jax

from vit_jax.data import device_augment
from vit_jax.data.config import Augment, DataConfig
from vit_jax.data.pipeline import open_data

BATCH, STEPS = 128, 500


def main():
  augment = Augment(crop='pad', crop_padding=2, flip=True)
  data = open_data(DataConfig('fashion_mnist', batch_size=BATCH, augment=augment))
  apply, key = device_augment.augment(augment), jax.random.key(0)
  one_hot = jax.nn.one_hot
  step = jax.jit(lambda i, image, label: apply(jax.random.fold_in(key, i), image, one_hot(label, 10))[0].sum())
  feed = lambda steps: [step(i, b['image'], b['label']) for i, b in enumerate(data.train_batches(0, 0, steps))]
  jax.block_until_ready(feed(5))
  speeds = []
  for _ in range(5):
    start = time.perf_counter()
    jax.block_until_ready(feed(STEPS))
    speeds.append(STEPS * BATCH / (time.perf_counter() - start))
  print(f'{data.name} {data.image_shape}, batch {BATCH}: median {sorted(speeds)[2]:,.0f} images/s '
        f'(of {", ".join(f"{s:,.0f}" for s in speeds)})')


if __name__ == '__main__':
  main()
