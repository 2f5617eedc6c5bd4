"""A ViT on ImageNet-21k, a member of the ladder; sweep.py sets its shape and length.

  python -m vit_jax.main --config=experiments/imagenet_law/recipe.py           once the data is prepared
  python -m vit_jax.main --config=experiments/imagenet_law/recipe.py:random    as many fake pictures of that shape

Batch, peak rate, weight decay and clipping are those of Steiner et al. 2022, "How to train your ViT?", on ImageNet-21k;
their warm-up of 10,000 steps is 4,000 here, as the shortest run has 10,000. The rate is S/16's, and muP carries it to
the other sizes. Patches of 16 at every size, so that all see 196 tokens.
"""

from vit_jax import config

ARGS = ('random',)


def get_config(arg=''):
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool, c.model.pos_embed = 16, 'gap', 'sincos2d'
  c.model.dtype = 'bfloat16'
  c.data.source, c.data.num_classes, c.data.channels = 'tfds:imagenet21k', 21_841, 3
  c.data.image_size, c.data.batch_size = (224, 224), 4096
  c.data.augment.crop, c.data.augment.flip = 'inception', True
  c.optimizer.learning_rate, c.optimizer.weight_decay = 1e-3, 0.1
  c.parametrisation.name, c.parametrisation.base_width, c.parametrisation.base_depth = 'mup', 384, 12
  c.schedule.name, c.schedule.warmup_steps = 'wsd', 4_000
  c.evaluate.every = 5_000
  c.system.workers = 32
  if arg == 'random':
    c.data.source, c.system.workers = 'random:14_197_122', 0
  return c
