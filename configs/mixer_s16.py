"""MLP-Mixer-S/16 on ImageNet-1k from scratch: Tolstikhin et al. 2021, "MLP-Mixer: An all-MLP Architecture for Vision".

  python -m vit_jax.main --config=configs/mixer_s16.py                 300 epochs
  python -m vit_jax.main --config=configs/mixer_s16.py:b16             B/16; the published recipe reaches 76.3% top-1
  python -m vit_jax.main --config=configs/mixer_s16.py:runlocal        a few steps on fake images, anywhere

The values are those of big_vision's mlp_mixer_i1k.py, which is of B/16; nothing is published for S/16 on ImageNet-1k.
Its weight decay of 1e-4 is not multiplied by the learning rate of 1e-3; ours is, so it is 0.1 here. What differs, as it
does in every recipe here: Mixup is drawn for each picture, not for each batch. Not run by us yet.
"""

from vit_jax import config
from vit_jax.models import mixer

ARGS = ('b16', 'runlocal')


def get_config(arg=''):
  c = config.defaults('mixer')
  c.model.update(mixer.size('B/16' if arg == 'b16' else 'S/16'))
  c.model.drop_path = 0.1
  c.model.head_bias = -6.9
  c.model.dtype = 'bfloat16'
  c.data.source, c.data.num_classes, c.data.channels = 'tfds:imagenet2012', 1000, 3
  c.data.image_size = (224, 224)
  c.data.batch_size = 4096
  c.data.val_examples = 12_812  # 1% of the training pictures
  c.data.augment.crop, c.data.augment.crop_min_area, c.data.augment.flip = 'inception', 0.05, True
  c.data.augment.randaugment_operations = 'big_vision'
  c.data.augment.randaugment_layers, c.data.augment.randaugment_magnitude = 2, 15
  c.data.augment.mixup = 0.5
  c.loss.name = 'sigmoid'
  c.optimizer.learning_rate, c.optimizer.weight_decay = 1e-3, 0.1
  c.schedule.name, c.schedule.warmup_steps, c.schedule.final = 'linear', 10_000, 1e-5  # linear_end, of a peak of 1
  c.train.epochs = 300
  c.system.workers = 8
  if arg == 'runlocal':
    config.runlocal(c)
  return c
