"""draft"""

from vit_jax import config


def get_config():
  c = config.defaults('vit')
  c.model.patch_size = 4
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 128, 5, 256, 4
  c.model.pool = 'gap'
  c.data.source = 'fashion_mnist'
  c.data.batch_size = 128
  c.data.augment.crop, c.data.augment.crop_padding, c.data.augment.flip = 'pad', 2, True
  c.optimizer.learning_rate, c.optimizer.weight_decay = 2e-3, 0.05
  c.schedule.warmup_steps = 500
  c.train.epochs = 20
  return c
