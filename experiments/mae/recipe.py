"""The encoder of all runs of this experiment, on Fashion-MNIST: a ViT of 16 tokens.

  python -m vit_jax.main --config=experiments/mae/recipe.py               trained with labels
  python -m vit_jax.main --config=experiments/mae/recipe.py:reconstruct   as a masked autoencoder
"""

from vit_jax import config

# Its decoder is small, as the encoder is.
DECODER = {'decoder_width': 32, 'decoder_depth': 1, 'decoder_mlp_dim': 128, 'decoder_num_heads': 4}

ARGS = ('classify', 'reconstruct')


def get_config(arg='classify'):
  c = config.defaults('vit', arg)
  c.model.patch_size, c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 7, 48, 3, 192, 6
  c.model.pool = 'gap'
  c.data.source, c.data.batch_size, c.data.val_examples = 'fashion_mnist', 64, 2_000
  c.data.augment.flip = True
  c.data.augment.crop, c.data.augment.crop_padding = 'pad', 2
  c.optimizer.learning_rate, c.optimizer.weight_decay = 3e-3, 0.1
  c.schedule.warmup_steps = 100
  c.train.flops = 1.2e12
  c.evaluate.every, c.evaluate.batch_size = 100_000, 500  # at the end alone
  c.system.execution.scan = False  # three small layers: unrolled is faster on a CPU
  if arg == 'reconstruct':
    c.loss.update(DECODER)
    c.optimizer.beta2 = 0.95
  else:
    c.loss.label_smoothing = 0.1
  return c
