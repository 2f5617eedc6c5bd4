"""A masked autoencoder of ViT-B/16 on ImageNet-1k: He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners".

  python -m vit_jax.main --config=configs/mae_b16.py                   1,600 epochs of pre-training, without labels
  python -m vit_jax.main --config=configs/mae_b16.py:runlocal          a few steps on fake images, anywhere

Table 8 of the paper and facebookresearch/mae's PRETRAIN.md: AdamW with beta2 = 0.95, base learning rate 1.5e-4 per 256
images, batch 4,096, 40 epochs of warm-up, cosine, random resized crops and flips alone. Published after 1,600 epochs:
83.6% fine-tuned, 68.0% by a linear probe. What differs: 10,000 of the training pictures are val; the encoder's fixed
positions are those of big_vision, as in the other recipes, whose frequencies reach one step further than the paper's;
the class and mask tokens do not decay. Not run by us yet.
"""

from vit_jax import config
from vit_jax.models import vit

ARGS = ('runlocal',)


def get_config(arg=''):
  c = config.defaults('vit', 'reconstruct')
  c.model.update(vit.size('B/16'))
  c.model.pos_embed = 'sincos2d'
  c.model.dtype = 'bfloat16'
  c.data.source, c.data.num_classes, c.data.channels = 'tfds:imagenet2012', 1000, 3
  c.data.image_size, c.data.interpolation = (224, 224), 'bicubic'
  c.data.mean, c.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  c.data.batch_size = 4096
  c.data.augment.crop, c.data.augment.crop_min_area, c.data.augment.flip = 'inception', 0.2, True
  c.optimizer.learning_rate, c.optimizer.weight_decay, c.optimizer.beta2 = 2.4e-3, 0.05, 0.95
  c.optimizer.clip_norm = 0
  c.schedule.warmup_steps = 12_500  # 40 epochs
  c.train.epochs = 1600
  c.system.workers = 8
  if arg == 'runlocal':
    config.runlocal(c)
  return c
