"""DeiT-S on ImageNet-1k: Touvron et al. 2021, "Training data-efficient image transformers & distillation through
attention", table 9.

  python -m vit_jax.main --config=configs/deit_s16.py                  300 epochs; the paper's top-1: 79.8%
  python -m vit_jax.main --config=configs/deit_s16.py:distilled --config.distill.teacher=runs/TEACHER
                                                                       the same with a distillation token: 81.2%
  python -m vit_jax.main --config=configs/deit_s16.py:runlocal         a few steps on fake images, anywhere

The values are those of facebookresearch/deit's main.py and README_deit.md; the teacher of the paper is RegNetY-16GF
(82.9%), any finished run will do. What differs, as it does in every recipe here: 10,000 of the training pictures are
val; Mixup and CutMix are drawn for each picture, not for each batch, and erased boxes get uniform noise, not normal
noise (data/device_augment.py: a row of a batch depends on itself alone); kernels begin as in models/vit.py and the head
at 0, not all with a deviation of 0.02; the rate changes with each step, not each epoch, and its cosine begins after
warm-up, not at the start. main.py keeps a moving average too, which is not what the result is of. Not run by us yet.
"""

from vit_jax import config
from vit_jax.models import vit

ARGS = ('distilled', 'runlocal')


def get_config(arg=''):
  c = config.defaults('deit' if arg == 'distilled' else 'vit')
  c.model.update(vit.size('S/16'))
  c.model.drop_path = 0.1
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
  c.data.augment.repeats = 3
  c.loss.label_smoothing = 0.1
  c.optimizer.learning_rate, c.optimizer.weight_decay = 1e-3, 0.05  # 5e-4 for each 512 pictures
  c.optimizer.clip_norm = 0.0
  c.schedule.warmup_steps, c.schedule.warmup_from = 6_200, 1e-3  # 5 epochs, from 1e-6
  c.schedule.final = 0.01  # 1e-5
  c.train.epochs = 300
  c.system.workers = 8
  if arg == 'distilled':
    c.distill.teacher = 'runs/TEACHER'  # to be given: without a teacher there is no distillation
  if arg == 'runlocal':
    config.runlocal(c)
  return c
