"""Swin-T on ImageNet-1k: Liu et al. 2021, "Swin Transformer", appendix A2.1.

  python -m vit_jax.main --config=configs/swin_t.py                    300 epochs; the paper's top-1: 81.3%
  python -m vit_jax.main --config=configs/swin_t.py:runlocal           a few steps on fake images, anywhere

The values are those of microsoft/Swin-Transformer's config.py and configs/swin/swin_tiny_patch4_window7_224.yaml. What
differs, as it does in every recipe here: 10,000 of the training pictures are val; Mixup and CutMix are drawn for each
picture, not for each batch, and erased boxes get uniform noise, not normal noise (data/device_augment.py: a row of a
batch depends on itself alone); the patches' kernel begins as in models/swin.py, and the head at 0, not with a deviation
of 0.02. Not run by us yet.
"""

from vit_jax import config
from vit_jax.models import swin

ARGS = ('runlocal',)


def get_config(arg=''):
  c = config.defaults('swin')
  c.model.update(swin.size('T'))
  c.model.drop_path = 0.2
  c.model.dtype = 'bfloat16'
  c.data.source, c.data.num_classes, c.data.channels = 'tfds:imagenet2012', 1000, 3
  c.data.image_size = (224, 224)
  c.data.mean, c.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  c.data.interpolation = 'bicubic'
  c.data.batch_size = 1024
  c.data.augment.crop, c.data.augment.flip = 'inception', True
  c.data.augment.randaugment_operations = 'timm'
  c.data.augment.randaugment_layers, c.data.augment.randaugment_magnitude = 2, 9
  c.data.augment.randaugment_probability, c.data.augment.randaugment_noise = 0.5, 0.5
  c.data.augment.randaugment_fill = 'mean'
  c.data.augment.random_erasing = 0.25
  c.data.augment.mixup, c.data.augment.cutmix = 0.8, 1.0
  c.loss.label_smoothing = 0.1
  c.optimizer.learning_rate, c.optimizer.weight_decay = 1e-3, 0.05
  c.optimizer.clip_norm = 5.0
  c.schedule.warmup_steps, c.schedule.warmup_from = 24_800, 1e-3  # 20 epochs, from 1e-6
  c.schedule.final = 0.01  # 1e-5
  c.train.epochs = 300
  c.system.workers = 8
  if arg == 'runlocal':
    config.runlocal(c)
  return c
