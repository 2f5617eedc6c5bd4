"""A masked autoencoder (He et al. 2022) on the 1,797 digits that scikit-learn ships: a backbone without a label.

  python -m vit_jax.main --config=configs/mae_digits.py --workdir=runs/mae_digits
  python -m vit_jax.main --config=configs/quickstart.py --config.pretrained.path=runs/mae_digits

The first command learns to draw the 12 of 16 patches that are left out of a digit. The second fine-tunes its encoder.
No download; about a minute on two CPU cores.
"""

from vit_jax import config


def get_config():
  c = config.defaults('vit', 'reconstruct')
  c.model.patch_size = 2
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 64, 3, 128, 4
  c.model.pool = 'gap'
  c.loss.decoder_width, c.loss.decoder_depth = 32, 1
  c.loss.decoder_mlp_dim, c.loss.decoder_num_heads = 64, 2
  c.data.source = 'digits'
  c.data.batch_size = 64
  c.data.augment.crop, c.data.augment.crop_padding = 'pad', 1
  c.optimizer.learning_rate, c.optimizer.weight_decay, c.optimizer.beta2 = 3e-3, 0.05, 0.95
  c.schedule.warmup_steps = 100
  c.train.epochs = 120
  return c
