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
IMAGENET = {'data.mean': (0.485, 0.456, 0.406), 'data.std': (0.229, 0.224, 0.225), 'data.image_size': (224, 224)}
TEST = {'data.augment.eval_crop': None}  # with crop=inception: 224 of 256, as in all of them
ADAM = {'optimizer.name': 'adamw', 'optimizer.beta1': 0.9, 'optimizer.beta2': 0.999, 'optimizer.epsilon': 1e-8}
# rand-m9-mstd0.5-inc1 of timm's data/auto_augment.py (1.0.31), whose default probability is 0.5; the mean as fill and
# the interpolation are those that create_transform hands on. So in all three repositories.
TIMM = IMAGENET | TEST | ADAM | {
    'data.interpolation': 'bicubic', 'data.augment.crop': 'inception', 'data.augment.crop_min_area': 0.08,
    'data.augment.flip': True, 'data.augment.randaugment_operations': 'timm', 'data.augment.randaugment_layers': 2,
    'data.augment.randaugment_magnitude': 9, 'data.augment.randaugment_noise': 0.5,
    'data.augment.randaugment_probability': 0.5, 'data.augment.randaugment_fill': 'mean',
    'data.augment.color_jitter': 0.0,  # create_transform leaves it out where there is RandAugment
    'data.augment.random_erasing': 0.25, 'data.augment.mixup': 0.8, 'data.augment.cutmix': 1.0,
    'loss.label_smoothing': 0.1, 'optimizer.weight_decay': 0.05, 'train.epochs': 300, 'schedule.name': 'cosine',
    'model.dropout': 0.0, 'model.gelu': 'exact'}
# google-research/big_vision at 0127fb6: pp/ops_image.py, pp/archive/randaug.py, optax.py, models/vit.py.
BIG_VISION = TEST | ADAM | {
    'data.augment.crop': 'inception', 'data.augment.crop_min_area': 0.05,  # get_inception_crop's area_min=5
    'data.image_size': (224, 224), 'data.interpolation': None,  # bilinear
    'data.augment.flip': True, 'data.mean': None, 'data.std': None,  # value_range(-1, 1)
    'data.val_examples': 12_812,  # train[:99%]: 1% of 1,281,167
    'data.augment.randaugment_operations': 'big_vision', 'data.augment.randaugment_fill': 'grey',
    'data.augment.randaugment_layers': 2, 'data.augment.randaugment_probability': 1.0,
    'model.gelu': 'tanh',  # flax's nn.gelu
    'optimizer.learning_rate': 1e-3, 'optimizer.weight_decay': 0.1,  # 1e-4 that is not multiplied by the rate of 1e-3
    'optimizer.clip_norm': 1.0, 'schedule.warmup_steps': 10_000, 'schedule.warmup_from': 0.0}
# google-research/vision_transformer at c6de1e5: vit_jax/configs/common.py and vit.py, input_pipeline.py, train.py.
CIFAR10 = {
    'train.steps': 10_000, 'data.batch_size': 512, 'schedule.name': 'cosine', 'schedule.warmup_steps': 500,
    'optimizer.name': 'sgd', 'optimizer.nesterov': False, 'optimizer.clip_norm': 1.0, 'optimizer.momentum': 0.9,
    'optimizer.weight_decay': 0.0, 'data.image_size': (384, 384), 'data.augment.crop': 'inception',
    'data.augment.crop_min_area': 0.05, 'data.augment.flip': True, 'data.augment.eval_crop': 1.0,
    'data.val_examples': 1_000,  # train[:98%] of 50,000
    'model.dropout': 0.0}

PUBLISHED = {
    'finetune_cifar10.py': CIFAR10 | {'optimizer.learning_rate': 0.01},
    'finetune_cifar10.py:b32': CIFAR10 | {'optimizer.learning_rate': 0.03},
    # big_vision/configs/vit_s16_i1k.py.
    'vit_s16.py': BIG_VISION | {
        'data.batch_size': 1024, 'train.epochs': 90, 'data.augment.mixup': 0.2, 'schedule.name': 'cosine',
        'schedule.final': 0.0, 'data.augment.randaugment_magnitude': 10, 'model.pos_embed': 'sincos2d',
        'model.pool': 'gap', 'model.dropout': 0.0, 'model.drop_path': 0.0, 'loss.name': 'softmax'},
    # big_vision/configs/mlp_mixer_i1k.py; linear_end is relative to a peak of 1 (utils.py, optax.py).
    'mixer_s16.py:b16': BIG_VISION | {
        'data.batch_size': 4096, 'train.epochs': 300, 'data.augment.mixup': 0.5,
        'data.augment.randaugment_magnitude': 15, 'schedule.name': 'linear', 'schedule.final': 1e-5,
        'model.drop_path': 0.1, 'loss.name': 'sigmoid', 'model.head_bias': -6.9},
    # big_vision/configs/proj/image_text/siglip_lit_coco.py.
    'lit_b16.py': ADAM | {
        'data.batch_size': 512, 'train.steps': 5_000, 'data.text.length': 16, 'data.augment.flip': True,
        'data.augment.randaugment_operations': 'big_vision', 'data.augment.randaugment_layers': 2,
        'data.augment.randaugment_magnitude': 10, 'optimizer.learning_rate': 1e-3,
        'optimizer.weight_decay': 10.0,  # 0.01 that is not multiplied by the rate of 1e-3
        'optimizer.clip_norm': 1.0, 'schedule.name': 'cosine', 'schedule.warmup_steps': 150, 'loss.bias': -2.71,
        'loss.scale': 10.0},
    # facebookresearch/deit at 7e160fe: main.py, README_deit.md, samplers.py. 5e-4 for 512 pictures, of 1,024.
    'deit_s16.py': TIMM | {
        'data.batch_size': 1024, 'optimizer.learning_rate': 1e-3, 'model.drop_path': 0.1, 'data.augment.repeats': 3,
        'optimizer.clip_norm': 0.0, 'schedule.warmup_steps': 6_200,  # 5 epochs of 1,271,167 / 1,024 steps
        'schedule.warmup_from': 1e-3, 'schedule.final': 0.01},  # warmup-lr 1e-6 and min-lr 1e-5, which are not scaled
    # microsoft/Swin-Transformer at f82860b: config.py, configs/swin/swin_tiny_patch4_window7_224.yaml, main.py, which
    # scales BASE_LR, WARMUP_LR and MIN_LR by 1,024 / 512.
    'swin_t.py': {key: value for key, value in TIMM.items() if key not in ('model.dropout', 'model.gelu')} | {
        'data.batch_size': 1024, 'optimizer.learning_rate': 1e-3, 'model.drop_path': 0.2, 'optimizer.clip_norm': 5.0,
        'schedule.warmup_steps': 24_800, 'schedule.warmup_from': 1e-3, 'schedule.final': 0.01,
        'model.patch_size': 4, 'model.width': 96, 'model.depths': (2, 2, 6, 2), 'model.num_heads': (3, 6, 12, 24),
        'model.window_size': 7, 'model.mlp_ratio': 4},
    # facebookresearch/ConvNeXt at 048efce: TRAINING.md, main.py, models/convnext.py.
    'convnext_t.py': {key: value for key, value in TIMM.items() if key != 'model.dropout'} | {
        'data.batch_size': 4096, 'optimizer.learning_rate': 4e-3, 'model.drop_path': 0.1, 'optimizer.clip_norm': 0.0,
        'optimizer.ema_decay': 0.9999, 'optimizer.ema_warmup': False, 'schedule.warmup_steps': 6_200,
        'schedule.warmup_from': 0.0, 'schedule.final': 2.5e-4, 'model.layer_scale': 1e-6,
        'model.depths': (3, 3, 9, 3), 'model.widths': (96, 192, 384, 768)},
    # Goyal et al. 2017, sec. 5.1 and 2.2; facebookarchive/fb.resnet.torch at 985e569: opts.lua, train.lua,
    # datasets/imagenet.lua, datasets/transforms.lua.
    'resnet50.py': IMAGENET | TEST | {
        'data.batch_size': 1024, 'optimizer.name': 'sgd', 'optimizer.learning_rate': 0.4, 'optimizer.momentum': 0.9,
        'optimizer.nesterov': True, 'optimizer.weight_decay': 1e-4, 'optimizer.clip_norm': 0.0, 'train.epochs': 90,
        'schedule.name': 'step', 'schedule.drops': (30 / 90, 60 / 90, 80 / 90), 'schedule.warmup_steps': 6_200,
        'schedule.warmup_from': 0.25, 'data.augment.crop': 'inception', 'data.augment.crop_min_area': 0.08,
        'data.augment.flip': True, 'data.augment.color_jitter': 0.0, 'data.interpolation': 'bicubic',
        'loss.label_smoothing': 0.0},
    # facebookresearch/mae at efb2a80: PRETRAIN.md, main_pretrain.py, models_mae.py; He et al. 2022, table 8.
    'mae_b16.py': IMAGENET | {
        'data.batch_size': 4096, 'train.epochs': 1600, 'optimizer.name': 'adamw', 'optimizer.beta1': 0.9,
        'optimizer.beta2': 0.95, 'optimizer.learning_rate': 1.5e-4 * 4096 / 256, 'optimizer.weight_decay': 0.05,
        'optimizer.clip_norm': 0.0, 'schedule.name': 'cosine', 'schedule.final': 0.0, 'schedule.warmup_steps': 12_500,
        'data.augment.crop': 'inception', 'data.augment.crop_min_area': 0.2, 'data.augment.flip': True,
        'data.interpolation': 'bicubic', 'model.pool': 'cls', 'model.epsilon': 1e-6, 'loss.mask_ratio': 0.75,
        'loss.decoder_width': 512, 'loss.decoder_depth': 8, 'loss.decoder_num_heads': 16, 'loss.decoder_mlp_dim': 2048,
        'loss.normalize_targets': True},  # --norm_pix_loss
    # big_vision/configs/proj/cappa/pretrain.py, which is of another model: what caption_s16.py says that it has of it.
    'caption_s16.py:cappa': {
        'optimizer.learning_rate': 1e-3, 'optimizer.weight_decay': 0.1, 'optimizer.beta2': 0.999,
        'optimizer.clip_norm': 1.0, 'loss.parallel': 0.75, 'data.text.length': 64, 'schedule.name': 'cosine'},
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
