"""ViT-S/16 on ImageNet-1k from scratch: Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k".

  python -m vit_jax.main --config=configs/vit_s16.py                   90 epochs; the paper's top-1: 76.5%
  python -m vit_jax.main --config=configs/vit_s16.py:runlocal          a few steps on fake images, anywhere

RandAugment(2, 10), Mixup 0.2, sin-cos positions, mean pooling, batch 1024, 10k steps of warm-up, cosine. The paper's
weight decay of 1e-4 is not multiplied by the learning rate of 1e-3; ours is, so it is 0.1 here.

The values are those of big_vision's vit_s16_i1k.py, in which 76.5% belong to a tanh layer of the model's width before
the head (rep_size=True); here the head is one linear map, as in the model of every other recipe, which timm and
transformers load too. What else differs, as it does in every recipe here: Mixup is drawn for each picture, not for each
batch; the first moment is float32, not bfloat16; warm-up is (t + 1) / 10,000, not t / 10,000, whose first step does
nothing. Not run by us yet.
"""

from vit_jax import config
from vit_jax.models import vit

ARGS = ('runlocal',)


def get_config(arg=''):
  c = config.defaults('vit')
  c.model.update(vit.size('S/16'))
  c.model.pool, c.model.pos_embed, c.model.gelu = 'gap', 'sincos2d', 'tanh'
  c.model.dtype = 'bfloat16'
  c.data.source, c.data.num_classes, c.data.channels = 'tfds:imagenet2012', 1000, 3
  c.data.image_size = (224, 224)
  c.data.batch_size = 1024
  c.data.val_examples = 12_812  # 1% of the training pictures
  c.data.augment.crop, c.data.augment.crop_min_area, c.data.augment.flip = 'inception', 0.05, True
  c.data.augment.randaugment_operations = 'big_vision'
  c.data.augment.randaugment_layers, c.data.augment.randaugment_magnitude = 2, 10
  c.data.augment.mixup = 0.2
  c.optimizer.learning_rate, c.optimizer.weight_decay = 1e-3, 0.1
  c.schedule.warmup_steps = 10_000
  c.train.epochs = 90
  c.system.workers = 8
  if arg == 'runlocal':
    config.runlocal(c)
  return c
