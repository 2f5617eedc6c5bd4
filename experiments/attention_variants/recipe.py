"""A small ViT of 49 tokens on Fashion-MNIST with one of three kinds of attention, for two epochs.

  python -m vit_jax.main --config=experiments/attention_variants/recipe.py:local
"""

from vit_jax import config

ARGS = ('full', 'local', 'linear')


def get_config(arg='full'):
  c = config.defaults('vit')
  c.model.attention = arg
  if arg == 'local':
    c.model.attention_radius, c.model.global_tokens = 1, 1
  c.model.stem, c.model.patch_size = 'conv', 4  # 7 x 7 tokens
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 64, 4, 256, 4
  c.model.pool = 'gap'
  c.data.source = 'fashion_mnist'
  c.data.batch_size, c.data.val_examples = 128, 2_000
  c.data.augment.flip = True
  c.optimizer.learning_rate, c.optimizer.weight_decay = 3e-3, 0.1
  c.schedule.warmup_steps = 100
  c.train.epochs = 2
  c.system.execution.scan = False
  return c
