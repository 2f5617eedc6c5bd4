"""ViT-B/16 or B/32, pre-trained on ImageNet-21k, fine-tuned on CIFAR-10 (Dosovitskiy et al. 2021, table 4).

  python -m vit_jax.main --config=configs/finetune_cifar10.py         B/16; published: 99.02% (after 500 steps 98.59%)
  python -m vit_jax.main --config=configs/finetune_cifar10.py:b32     B/32; published: 98.55% and 98.88%

10,000 steps of 512 pictures at 384 x 384, for which the positions are resized from 224; SGD with momentum 0.9 and no
weight decay, gradient norm clipped to 1, cosine after 500 steps of warm-up, new head at zero. Crops of 5% to 100% of
the picture and flips, as in the original code, whose README has the results (without dropout). It trains on 98% of the
pictures too. What differs: its momentum is bfloat16. Not run by us yet.

The weights come from huggingface.co (uv run --extra hub), or --config.pretrained.path=FILE: the original .npz too.
Data: uv run --extra prepare python -m vit_jax.data.prepare --name=cifar10. A 224 x 224 run costs a third:
--config.data.image_size=224.
"""

from vit_jax import config

ARGS = ('b16', 'b32')


def get_config(arg='b16'):
  c = config.defaults('vit')
  patch_size = {'b16': 16, 'b32': 32}[arg]
  c.pretrained.path = f'hf:google/vit-base-patch{patch_size}-224-in21k'
  c.model.dtype = 'bfloat16'
  c.data.source, c.data.image_size, c.data.channels = 'tfds:cifar10', (384, 384), 3
  c.data.batch_size, c.data.val_examples = 512, 1_000
  c.data.augment.crop, c.data.augment.crop_min_area, c.data.augment.flip = 'inception', 0.05, True
  c.data.augment.eval_crop = 1.0
  c.optimizer.name, c.optimizer.clip_norm = 'sgd', 1.0
  c.optimizer.learning_rate = {'b16': 0.01, 'b32': 0.03}[arg]
  c.schedule.warmup_steps = 500
  c.train.steps = 10_000
  c.system.execution.remat = 'dots'
  c.system.workers = 8
  return c
