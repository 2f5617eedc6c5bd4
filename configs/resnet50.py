"""ResNet-50 (v1.5) on ImageNet-1k: Goyal et al. 2017, "Accurate, large minibatch SGD: training ImageNet in 1 hour".

  python -m vit_jax.main --config=configs/resnet50.py                  90 epochs; the paper's top-1: 76.3%
  python -m vit_jax.main --config=configs/resnet50.py:runlocal         a few steps on fake images, anywhere

Nesterov momentum, 0.1 for each 256 pictures, 5 epochs of warm-up, random crops and flips, no decay of norms and biases.
The learning rate falls as a cosine here, in the paper by steps. Not run by us yet.
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
  c.data.batch_size = 1024
  c.data.augment.crop, c.data.augment.flip = 'inception', True
  c.optimizer.name, c.optimizer.nesterov = 'sgd', True
  c.optimizer.learning_rate, c.optimizer.weight_decay = 0.4, 1e-4
  c.optimizer.clip_norm = 0.0
  c.schedule.warmup_steps = 6_200  # 5 epochs
  c.train.epochs = 90
  c.system.workers = 8
  if arg == 'runlocal':
    config.runlocal(c)
  return c
