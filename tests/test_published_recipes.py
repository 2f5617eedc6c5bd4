"""Recipes that carry a published number hold its settings: each value beside the code that it is from.

What is not in these tables differs, and the recipe's docstring says so.
"""

import pathlib

import pytest

from vit_jax import config
from vit_jax.errors import UserError
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib

CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'
IMAGENET = {'data.mean': (0.485, 0.456, 0.406), 'data.std': (0.229, 0.224, 0.225)}
# timm's rand-m9-mstd0.5-inc1 with its default probability, as in all three repositories.
TIMM = IMAGENET | {
    'data.interpolation': 'bicubic', 'data.augment.randaugment_layers': 2, 'data.augment.randaugment_magnitude': 9,
    'data.augment.randaugment_noise': 0.5, 'data.augment.randaugment_probability': 0.5,
    'data.augment.randaugment_fill': 'mean', 'data.augment.random_erasing': 0.25, 'data.augment.mixup': 0.8,
    'data.augment.cutmix': 1.0, 'data.augment.crop_min_area': 0.08, 'data.augment.flip': True,
    'loss.label_smoothing': 0.1, 'optimizer.name': 'adamw', 'optimizer.weight_decay': 0.05, 'train.epochs': 300,
    'schedule.name': 'cosine'}
BIG_VISION = {
    'data.augment.crop': 'inception', 'data.augment.crop_min_area': 0.05,  # pp_ops.get_inception_crop's area_min=5
    'data.augment.flip': True, 'data.mean': None, 'data.std': None,  # value_range(-1, 1)
    'model.gelu': 'tanh',  # flax's nn.gelu
    'optimizer.learning_rate': 1e-3, 'optimizer.clip_norm': 1.0}

PUBLISHED = {
    # google-research/vision_transformer, README: the fine-tuning table of CIFAR-10; configs/common.py.
    'finetune_cifar10.py': {'optimizer.learning_rate': 0.01, 'train.steps': 10_000, 'data.batch_size': 512,
                            'schedule.warmup_steps': 500, 'optimizer.clip_norm': 1.0, 'optimizer.momentum': 0.9,
                            'optimizer.weight_decay': 0.0, 'data.image_size': (384, 384),
                            'data.augment.crop_min_area': 0.05},
    'finetune_cifar10.py:b32': {'optimizer.learning_rate': 0.03, 'train.steps': 10_000, 'data.batch_size': 512},
    # google-research/big_vision, configs/vit_s16_i1k.py.
    'vit_s16.py': BIG_VISION | {
        'data.batch_size': 1024, 'train.epochs': 90, 'data.augment.mixup': 0.2, 'schedule.warmup_steps': 10_000,
        'data.augment.randaugment_layers': 2, 'data.augment.randaugment_magnitude': 10, 'model.pos_embed': 'sincos2d',
        'model.pool': 'gap', 'optimizer.weight_decay': 0.1,  # 1e-4 that is not multiplied by the rate of 1e-3
        'data.val_examples': 12_812},  # 1% of 1,281,167
    # google-research/big_vision, configs/mlp_mixer_i1k.py.
    'mixer_s16.py:b16': BIG_VISION | {
        'data.batch_size': 4096, 'train.epochs': 300, 'data.augment.mixup': 0.5, 'schedule.warmup_steps': 10_000,
        'schedule.name': 'linear', 'model.drop_path': 0.1, 'loss.name': 'sigmoid', 'optimizer.weight_decay': 0.1},
    # facebookresearch/deit, main.py's defaults and README_deit.md; 5e-4 for 512 pictures.
    'deit_s16.py': TIMM | {'data.batch_size': 1024, 'optimizer.learning_rate': 1e-3, 'model.drop_path': 0.1,
                           'data.augment.repeats': 3, 'schedule.final': 0.01, 'optimizer.clip_norm': 0.0},
    # microsoft/Swin-Transformer, config.py and configs/swin/swin_tiny_patch4_window7_224.yaml.
    'swin_t.py': TIMM | {'data.batch_size': 1024, 'optimizer.learning_rate': 1e-3, 'model.drop_path': 0.2,
                         'optimizer.clip_norm': 5.0, 'schedule.final': 0.01},
    # facebookresearch/ConvNeXt, TRAINING.md and main.py's defaults.
    'convnext_t.py': TIMM | {'data.batch_size': 4096, 'optimizer.learning_rate': 4e-3, 'model.drop_path': 0.1,
                             'optimizer.ema_decay': 0.9999, 'schedule.final': 2.5e-4, 'model.layer_scale': 1e-6},
    # Goyal et al. 2017, sec. 5.1.
    'resnet50.py': IMAGENET | {'data.batch_size': 1024, 'optimizer.learning_rate': 0.4, 'optimizer.momentum': 0.9,
                               'optimizer.nesterov': True, 'optimizer.weight_decay': 1e-4, 'train.epochs': 90,
                               'data.augment.crop_min_area': 0.08},
}


@pytest.mark.parametrize('recipe', PUBLISHED)
def test_values_are_those_of_the_published_code(recipe):
  found = run_config.cast(config.load_recipe(str(CONFIGS / recipe)))
  values = {}
  for key in PUBLISHED[recipe]:
    value = found
    for name in key.split('.'):
      value = getattr(value, name)
    values[key] = value
  assert values == PUBLISHED[recipe]


def test_distillation_without_a_teacher_is_refused(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  c = config.load_recipe(str(CONFIGS / 'deit_s16.py') + ':distilled')
  config.runlocal(c)
  c.data.num_classes = 10
  with pytest.raises(UserError, match='distill.teacher=runs/TEACHER: no finished run there'):
    run_lib.prepare(run_config.cast(c))
