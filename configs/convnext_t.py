"""ConvNeXt-T on ImageNet-1k: Liu et al. 2022, "A ConvNet for the 2020s", table 5.

  python -m vit_jax.main --config=configs/convnext_t.py                300 epochs; the paper's top-1: 82.1%
  python -m vit_jax.main --config=configs/convnext_t.py:runlocal       a few steps on fake images, anywhere

The values are those of facebookresearch/ConvNeXt's TRAINING.md and main.py. What differs, as it does in every recipe
here: 10,000 of the training pictures are val; Mixup and CutMix are drawn for each picture, not for each batch, and
erased boxes get uniform noise, not normal noise (data/device_augment.py: a row of a batch depends on itself alone); the
head begins at 0, not with a deviation of 0.02. Not run by us yet.
"""

from vit_jax import config
from vit_jax.models import convnext

ARGS = ('runlocal',)


def get_config(arg=''):
  c = config.defaults('convnext')
  c.model.update(convnext.size('T'))
  c.model.drop_path = 0.1
  c.model.dtype = 'bfloat16'
  c.data.source, c.data.num_classes, c.data.channels = 'tfds:imagenet2012', 1000, 3
  c.data.image_size = (224, 224)
  c.data.mean, c.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  c.data.interpolation = 'bicubic'
  c.data.batch_size = 4096
  c.data.augment.crop, c.data.augment.flip = 'inception', True
  c.data.augment.randaugment_operations = 'timm'
  c.data.augment.randaugment_layers, c.data.augment.randaugment_magnitude = 2, 9
  c.data.augment.randaugment_probability, c.data.augment.randaugment_noise = 0.5, 0.5
  c.data.augment.randaugment_fill = 'mean'
  c.data.augment.random_erasing = 0.25
  c.data.augment.mixup, c.data.augment.cutmix = 0.8, 1.0
  c.loss.label_smoothing = 0.1
  c.optimizer.learning_rate, c.optimizer.weight_decay = 4e-3, 0.05
  c.optimizer.clip_norm = 0.0
  c.optimizer.ema_decay, c.optimizer.ema_warmup = 0.9999, False
  c.schedule.warmup_steps, c.schedule.final = 6_200, 2.5e-4  # 20 epochs; down to 1e-6
  c.train.epochs = 300
  c.system.workers = 8
  if arg == 'runlocal':
    config.runlocal(c)
  return c
