"""ResNet-50 (v1.5) on ImageNet-1k: Goyal et al. 2017, "Accurate, large minibatch SGD: training ImageNet in 1 hour".

  python -m vit_jax.main --config=configs/resnet50.py                  90 epochs; the paper's top-1: 76.3%
  python -m vit_jax.main --config=configs/resnet50.py:runlocal         a few steps on fake images, anywhere

Sec. 5.1 of the paper, and fb.resnet.torch, which it follows: Nesterov momentum, 0.1 for each 256 pictures, warm-up from
0.1 in 5 epochs, a tenth after 30, 60 and 80 epochs, random crops and flips, no decay of norms and biases. What differs:
10,000 of the training pictures are val; batch norm's statistics are those of the whole batch, not of 32 pictures; the
head begins at 0, not with a deviation of 0.01; the bias of the head does not decay. Not run by us yet.
"""

from vit_jax import config
from vit_jax.models import resnet

ARGS = ('runlocal',)


def get_config(arg=''):
  c = config.defaults('resnet')
  c.model.update(resnet.size('ResNet-50'))
  c.model.dtype = 'bfloat16'
  c.data.source, c.data.num_classes, c.data.channels = 'tfds:imagenet2012', 1000, 3
  c.data.image_size = (224, 224)
  c.data.mean, c.data.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
  c.data.interpolation = 'bicubic'
  c.data.batch_size = 1024
  c.data.augment.crop, c.data.augment.flip = 'inception', True
  c.optimizer.name, c.optimizer.nesterov = 'sgd', True
  c.optimizer.learning_rate, c.optimizer.weight_decay = 0.4, 1e-4
  c.optimizer.clip_norm = 0.0
  c.schedule.name, c.schedule.drops = 'step', (30 / 90, 60 / 90, 80 / 90)
  c.schedule.warmup_steps, c.schedule.warmup_from = 6_200, 0.25  # 5 epochs, from 0.1
  c.train.epochs = 90
  c.system.workers = 8
  if arg == 'runlocal':
    config.runlocal(c)
  return c
