"""A tiny ViT on Fashion-MNIST, trained briefly: size, learning rate and parametrisation are set in sweep.py."""

from vit_jax import config


def get_config():
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool = 7, 'gap'
  c.data.source, c.data.batch_size, c.data.val_examples = 'fashion_mnist', 64, 5_000
  c.data.augment.flip = True
  c.schedule.name, c.schedule.warmup_steps = 'cosine', 60
  c.train.steps = 600
  c.evaluate.every, c.evaluate.batch_size = 600, 500
  return c
