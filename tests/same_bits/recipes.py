"""The small runs of `same_bits.py`: recipes.py:NAME, on scikit-learn's digits.

They use the part of the config that every commit has, so that old commits run them too.
"""

from vit_jax import config

ARGS = ('vit', 'vit_bfloat16', 'deit', 'swin', 'resnet', 'convnext', 'branch', 'packed')

VIT = dict(patch_size=2, width=32, depth=2, mlp_dim=64, num_heads=4)


def get_config(arg):
  """One run of 12 steps; `branch` and `packed` are what sweeps.py varies."""
  family = {'vit_bfloat16': 'vit', 'branch': 'vit', 'packed': 'vit'}.get(arg, arg)
  c = config.defaults(family)
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate = 32, 12, 3e-3
  c.evaluate.every, c.system.log_every = 6, 3
  c.data.augment.crop, c.data.augment.crop_padding = 'pad', 1
  if family in ('vit', 'deit'):
    c.model.update(VIT)
  globals().get(f'_{arg}', lambda c: None)(c)
  return c


def _vit(c):
  c.model.dropout, c.model.pool, c.optimizer.weight_decay = 0.1, 'gap', 0.1


def _vit_bfloat16(c):
  c.model.dtype, c.model.drop_path, c.data.augment.mixup = 'bfloat16', 0.2, 0.2
  c.system.mesh.data, c.system.mesh.fsdp, c.system.mesh.tensor = 2, 2, 2


def _deit(c):
  c.distill.teacher, c.distill.kind = 'vit', 'soft'  # the folder of the first run, beside this one's


def _swin(c):
  c.model.update(dict(width=16, depths=(2, 2), num_heads=(2, 4), window_size=3, patch_size=2, drop_path=0.1))
  c.optimizer.ema_decay, c.system.microbatches = 0.9, 2


def _resnet(c):
  c.model.update(dict(block='basic', depths=(1, 1), widths=(8, 16), stem='full', stem_width=8))
  c.optimizer.name, c.optimizer.weight_decay = 'sgd', 1e-4
  c.system.mesh.data, c.system.mesh.fsdp = 4, 2


def _convnext(c):
  c.model.update(dict(depths=(2, 1), widths=(8, 16), patch_size=2, kernel_size=3, layer_scale=0.5, drop_path=0.2))
  c.data.augment.cutmix, c.optimizer.name = 1.0, 'lion'


def _branch(c):
  c.schedule.name, c.schedule.warmup_steps, c.model.depth = 'wsd', 2, 1


def _packed(c):
  c.model.depth, c.data.augment.flip = 1, True
