"""A tiny ViT on Fashion-MNIST that is evaluated often, so that its whole curve is known."""

from vit_jax import config


def get_config():
  c = config.defaults('vit')
  c.model.patch_size, c.model.depth, c.model.pool = 7, 3, 'gap'
  c.model.width, c.model.mlp_dim, c.model.num_heads = 32, 128, 4
  c.data.source, c.data.batch_size = 'fashion_mnist', 64
  c.data.augment.flip = True
  c.optimizer.learning_rate = 0.2 / 32
  c.schedule.name, c.schedule.warmup_steps = 'wsd', 200
  c.evaluate.every, c.evaluate.batch_size = 100, 500
  c.system.execution.scan = False  # three small layers: unrolled is faster on a CPU
  return c
