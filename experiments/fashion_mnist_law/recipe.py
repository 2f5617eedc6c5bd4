"""A tiny ViT on Fashion-MNIST, a member of the ladder; sweep.py sets its shape, length, seed and learning rate."""

from vit_jax import config


def get_config():
  c = config.defaults('vit')
  c.model.patch_size, c.model.depth, c.model.pool = 7, 3, 'gap'
  c.data.source, c.data.batch_size = 'fashion_mnist', 64
  c.data.augment.flip = True
  c.schedule.name, c.schedule.warmup_steps = 'wsd', 200
  c.evaluate.every, c.evaluate.batch_size = 1_000, 500
  c.system.execution.scan = False  # three small layers: unrolled is faster on a CPU
  return c
