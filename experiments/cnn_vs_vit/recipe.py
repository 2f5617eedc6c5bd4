"""One of five kinds of network at 3.1 to 3.25 million FLOPs an image (forward), on Fashion-MNIST.

  python -m vit_jax.main --config=experiments/cnn_vs_vit/recipe.py:cnn

cnn: a ResNet of three stages; vit: patches of 7 x 7 pixels; deit: the same with a distillation token; hybrid: a ViT of
patches of 4 x 4 behind a convolutional stem; swin: two stages of windows of 4 x 4 patches of 4 x 4 pixels.
"""

from vit_jax import config

ENCODER = dict(depth=3, num_heads=6, width=48, mlp_dim=192)
MODELS = {
    'cnn': ('resnet', dict(block='basic', depths=(1, 1, 1), widths=(24, 48, 96), stem='half', stem_width=24)),
    'vit': ('vit', dict(patch_size=7, **ENCODER)),
    'deit': ('deit', dict(patch_size=7, **ENCODER)),
    'hybrid': ('vit', dict(stem='conv', patch_size=4, depth=3, num_heads=3, width=24, mlp_dim=96)),
    'swin': ('swin', dict(patch_size=4, width=22, depths=(2, 2), num_heads=(2, 4), window_size=4)),
}

ARGS = tuple(MODELS)


def get_config(arg='vit'):
  family, model = MODELS[arg]
  c = config.defaults(family)
  c.model.update(model)
  c.data.source, c.data.batch_size = 'fashion_mnist', 64
  c.data.augment.flip = True
  c.data.augment.crop, c.data.augment.crop_padding = 'pad', 2
  c.loss.label_smoothing = 0.1
  c.optimizer.weight_decay = 0.1
  c.schedule.warmup_steps = 400
  c.train.steps = 4_000
  c.evaluate.every, c.evaluate.batch_size = 4_000, 500
  c.system.execution.scan = False  # few small layers: unrolled is faster on a CPU
  return c
