"""Writes the golden files that hold reading and writing of timm's weights to timm, as make_golden.py does for ViT.

  pip install torch==2.13.0 torchvision timm==1.0.31 numpy==2.4.6
  python tests/golden/make_timm_golden.py

Each `timm_CASE.npz` holds `config` (a config.json of timm's as JSON), `images` (float32 [B, C, H, W]), `logits`
(float32 [B, classes]) and one `param:NAME` for each parameter and running statistic. No array is pickled. All values
come from the seed; another processor or version of torch may change the logits' last bits.
"""

import json
import pathlib
import zlib

import numpy as np
import timm
import torch

_VIT = dict(embed_dim=8, depth=2, num_heads=2, img_size=[16, 24], patch_size=8)
# (architecture, its arguments, height and width).
CASES = {
    'vit': ('vit_base_patch16_224', _VIT, (16, 24)),
    'vit_mean': ('vit_base_patch16_224', dict(_VIT, class_token=False, global_pool='avg', fc_norm=False,
                                              init_values=0.1, qkv_bias=False), (16, 24)),
    'vit_map': ('vit_base_patch16_siglip_224', _VIT, (16, 24)),
    'deit': ('deit_base_distilled_patch16_224', _VIT, (16, 24)),
    'swin': ('swin_tiny_patch4_window7_224', dict(embed_dim=8, depths=[2, 2], num_heads=[2, 4], img_size=[24, 24],
                                                  patch_size=2, window_size=3), (24, 24)),
    'resnet': ('resnet18', dict(layers=[1, 2, 1, 1], channels=[8, 12, 16, 8]), (40, 36)),
    'regnet': ('regnety_002', dict(w0=8, wa=6.0, wm=1.6, depth=6, group_size=4), (40, 36)),
    'convnext': ('convnext_tiny', dict(depths=[1, 2, 1, 1], dims=[4, 8, 12, 8]), (40, 36)),
}
_EVA = dict(_VIT, num_heads=2)
_CONVNEXT = dict(depths=[1, 2, 1, 1], dims=[4, 8, 12, 8])
# The same, of which only the reading is tested: `tower_timm_CASE.npz`, as those of make_towers_golden.py.
READ_ONLY = {
    'deit3': ('deit3_small_patch16_224', _VIT, (16, 24)),
    'flexivit': ('flexivit_small', _VIT, (16, 24)),
    'registers': ('vit_base_patch14_reg4_dinov2', dict(_VIT, reg_tokens=2, qk_norm=True), (16, 24)),
    'giant': ('vit_giant_patch14_reg4_dinov2', _VIT, (16, 24)),
    'clip': ('vit_base_patch16_clip_quickgelu_224', _VIT, (16, 24)),
    'resnext': ('resnext50_32x4d', dict(layers=[1, 2, 1, 1], channels=[4, 8, 8, 4], cardinality=2, base_width=32),
                (40, 36)),
    'convnext_atto': ('convnext_atto', _CONVNEXT, (40, 36)),
    'convnext_v2': ('convnextv2_atto', _CONVNEXT, (40, 36)),
    'swin_v2': ('swinv2_tiny_window8_256', dict(embed_dim=8, depths=[2, 2], num_heads=[2, 4], img_size=[12, 24],
                                                patch_size=2, window_size=3, pretrained_window_sizes=[2, 4]), (12, 24)),
    'resnet_d': ('resnet10t', dict(layers=[1, 1, 1, 1], channels=[8, 12, 16, 8], stem_width=8), (40, 36)),
    'dinov3': ('vit_small_plus_patch16_dinov3_qkvb', _EVA, (16, 24)),
    'rope': ('vit_small_patch16_rope_224', _EVA, (16, 24)),
}


def random_value(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Values for one parameter or statistic, none of them left at a 0 or 1 that would hide a mistake."""
  if name.endswith('running_var'):
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  value = rng.standard_normal(shape)
  if 'bias_table' in name:
    return value.astype(np.float32)
  if len(shape) == 1:
    return (name.endswith(('weight', 'gamma', 'gamma_1', 'gamma_2')) + 0.3 * value).astype(np.float32)
  return (1.4 * value / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def random_model(case: str) -> torch.nn.Module:
  """A model of 7 classes in evaluation mode, its every parameter and running statistic drawn from the case's name."""
  architecture, arguments, _ = (CASES | READ_ONLY)[case]
  model = timm.create_model(architecture, num_classes=7, **arguments).eval()
  rng = np.random.default_rng(zlib.crc32(case.encode()))
  with torch.no_grad():
    for name, tensor in model.state_dict().items():
      if tensor.is_floating_point():
        tensor.copy_(torch.from_numpy(random_value(rng, name, tuple(tensor.shape))))
  return model


def config(case: str) -> dict:
  """What timm writes beside the weights: the architecture, and how its pictures are prepared."""
  architecture, arguments, size = (CASES | READ_ONLY)[case]
  cfg = timm.get_pretrained_cfg(architecture)
  prepared = {name: getattr(cfg, name) for name in ('interpolation', 'crop_pct', 'crop_mode', 'mean', 'std')}
  return {'architecture': architecture, 'num_classes': 7, 'model_args': arguments,
          'pretrained_cfg': prepared | {'input_size': [3, *size], 'num_classes': 7}}


def case_arrays(case: str) -> dict[str, np.ndarray]:
  """What the file of this case holds."""
  model, size = random_model(case), (CASES | READ_ONLY)[case][2]
  images = np.random.default_rng([zlib.crc32(case.encode()), 1]).standard_normal((2, 3, *size)).astype(np.float32)
  with torch.no_grad():
    logits = model(torch.from_numpy(images)).numpy()
  tensors = {f'param:{name}': tensor.numpy() for name, tensor in model.state_dict().items()}
  return {'config': np.array(json.dumps(config(case))), 'images': images, 'logits': logits, **tensors}


def main() -> None:
  """Writes every case beside this script."""
  print(f'torch {torch.__version__}, timm {timm.__version__}, numpy {np.__version__}')
  for case in (*CASES, *READ_ONLY):
    name = f'timm_{case}' if case in CASES else f'tower_timm_{case}'
    path, arrays = pathlib.Path(__file__).with_name(f'{name}.npz'), case_arrays(case)
    if case in READ_ONLY:
      arrays['outputs'] = arrays.pop('logits')
    np.savez_compressed(path, **arrays)
    print(f'{path.name}: {path.stat().st_size} bytes')


if __name__ == '__main__':
  main()
