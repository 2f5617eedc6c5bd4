"""The ViT that is pruned: 49 tokens, 223,000 parameters, on Fashion-MNIST.

  python -m vit_jax.main --config=experiments/pruning/recipe.py --workdir=runs/pruning/whole
"""

from vit_jax import config


def get_config():
  c = config.defaults('vit')
  c.model.stem, c.model.patch_size = 'conv', 4  # 7 x 7 tokens
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 64, 4, 256, 4
  c.model.pool = 'gap'
  c.data.source = 'fashion_mnist'
  c.data.batch_size, c.data.val_examples = 128, 2_000
  c.data.augment.flip = True
  c.data.augment.crop, c.data.augment.crop_padding = 'pad', 1
  c.loss.label_smoothing = 0.1
  c.optimizer.learning_rate, c.optimizer.weight_decay = 3e-3, 0.1
  c.schedule.warmup_steps = 200
  c.train.epochs = 6
  c.system.execution.scan = False
  return c
