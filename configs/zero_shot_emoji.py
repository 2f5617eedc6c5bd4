"""Two small towers learn emoji and their names, and then name the emoji of an artist never seen.

  python -m vit_jax.data.prepare --name=emoji --data_dir=DIR
  python -m vit_jax.main --config=configs/zero_shot_emoji.py --config.data.data_dir=DIR
  python -m vit_jax.predict RUN PICTURES --names='cat,dog,red heart'
  python -m vit_jax.search RUN FOLDER --text='a red heart'

The sigmoid loss of SigLIP (Zhai et al. 2023) with equal captions as positives. Pictures have 32 x 32 pixels and are 16
patches; names are at most 16 tokens, learnt from the names. `test` is all pictures of one artist (Noto), of whom no
picture is trained on; most of their names occur with other artists.
"""

from vit_jax import config

ARGS = ()


def get_config(arg=''):
  del arg
  c = config.defaults('vit', 'contrast')
  c.model.patch_size, c.model.pool = 8, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 160, 4, 640, 5
  c.loss.width, c.loss.text.pool = 128, 'gap'
  c.loss.text.update(dict(width=160, depth=3, mlp_dim=640, num_heads=5))
  c.data.source, c.data.image_size, c.data.channels = 'emoji:en@noto', (32, 32), 3
  c.data.text.tokenizer, c.data.text.vocab_size, c.data.text.length = 'bpe', 2_048, 16
  c.data.batch_size = 128
  c.data.augment.crop, c.data.augment.crop_padding = 'pad', 3
  c.optimizer.learning_rate, c.optimizer.weight_decay, c.optimizer.beta2 = 1e-3, 0.1, 0.95
  c.schedule.warmup_steps = 100
  c.train.steps = 2_000
  return c
