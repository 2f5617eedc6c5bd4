"""Two small towers that learn to name pictures on a laptop's CPU, for an artist of whom they have seen nothing.

  python -m vit_jax.main --config=experiments/zero_shot/recipe.py:emoji --config.data.data_dir=DIR
  python -m vit_jax.main --config=experiments/zero_shot/recipe.py:icons --config.data.data_dir=DIR

`emoji`: names in English, German, Spanish and Japanese, of which each step draws one; test is Noto (Google). `icons`:
English names; test is Hugeicons. The softmax loss of CLIP, with equal captions as positives: at 256 pairs it falls from
the first steps on. Random crops, as the artists differ in sizes and margins; the colours are kept.
"""

from vit_jax import config

SOURCES = {'emoji': 'emoji:en,de,es,ja@noto', 'icons': 'icons@Hugeicons'}
VOCABULARY = {'emoji': 8_192, 'icons': 2_048}  # so that most words are one token
STEPS = {'emoji': 3_000, 'icons': 1_500}
ARGS = tuple(SOURCES)


def get_config(arg='emoji'):
  c = config.defaults('vit', 'contrast')
  c.model.patch_size, c.model.pool = 8, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 96, 3, 384, 6
  c.loss.name, c.loss.scale, c.loss.width, c.loss.text.pool = 'softmax', 14.3, 128, 'gap'
  c.loss.text.update(dict(width=64, depth=1, mlp_dim=256, num_heads=2))
  c.data.source, c.data.image_size, c.data.channels = SOURCES[arg], (32, 32), 3
  c.data.text.tokenizer, c.data.text.vocab_size, c.data.text.length = 'bpe', VOCABULARY[arg], 16
  c.data.batch_size = 256
  c.data.augment.crop, c.data.augment.crop_min_area = 'inception', 0.5
  c.data.augment.eval_crop = 1.0
  c.optimizer.learning_rate, c.optimizer.weight_decay, c.optimizer.beta2 = 3e-3, 0.1, 0.95
  c.schedule.warmup_steps = 50
  c.train.steps = STEPS[arg]
  c.evaluate.every = 500
  c.system.execution.scan = False  # a few small layers: unrolled is faster on a CPU
  return c
