"""Writes the golden files that hold our CNNs, DeiT and Swin to transformers' classes, as make_golden.py does for ViT.

  pip install torch==2.13.0 transformers==5.23.0 numpy==2.4.6
  python tests/golden/make_families_golden.py

Each `FAMILY-CASE.npz` holds `config` (the arguments of transformers' config class as JSON), `images` (float32
[B, C, H, W]), `logits` (float32 [B, classes]) and one `param:NAME` for each parameter and each running statistic,
under transformers' name. No array is pickled. All values come from the seed; another processor or version of torch may
change the logits' last bits.
"""

import json
import pathlib
import zlib

import numpy as np
import torch
import transformers

LABELS = dict(num_channels=3, num_labels=7)
# (class, arguments of its config, height and width). Pictures that no stride, patch or window divides, and sizes that
# differ from the others they could be mistaken for. Norms have the epsilons of the published code.
CASES = {
    'resnet-basic': ('ResNet', dict(LABELS, layer_type='basic', embedding_size=8, hidden_sizes=[8, 12], depths=[3, 2]),
                     (29, 38)),
    'resnet-bottleneck': ('ResNet', dict(LABELS, layer_type='bottleneck', embedding_size=8, hidden_sizes=[16, 24],
                                         depths=[2, 3]), (38, 29)),
    'resnet-regnet_y': ('RegNet', dict(LABELS, layer_type='y', embedding_size=8, hidden_sizes=[12, 20], depths=[1, 3],
                                       groups_width=4), (29, 38)),
    'convnext-two_stages': ('ConvNext', dict(LABELS, hidden_sizes=[12, 20], depths=[2, 3], num_stages=2, patch_size=4,
                                             layer_scale_init_value=0.5, layer_norm_eps=1e-6), (27, 38)),
    'deit-tall': ('DeiT', dict(LABELS, image_size=[12, 20], patch_size=4, hidden_size=16, num_hidden_layers=3,
                               num_attention_heads=2, intermediate_size=40, layer_norm_eps=1e-6), (12, 20)),
    'swin-padded': ('Swin', dict(LABELS, image_size=[22, 29], embed_dim=12, depths=[2, 4], num_heads=[2, 3],
                                 window_size=3, patch_size=2), (22, 29)),
    'swin-one_window': ('Swin', dict(LABELS, image_size=[16, 16], embed_dim=12, depths=[2, 2], num_heads=[3, 2],
                                     window_size=4, patch_size=2), (16, 16)),
}


def random_value(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
  """Values for one parameter or statistic, none of them left at a 0 or 1 that would hide a mistake."""
  if name.endswith('running_var'):
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)
  value = rng.standard_normal(shape)
  if 'bias_table' in name:
    return value.astype(np.float32)
  if len(shape) == 1:
    is_scale = 'norm' in name and name.endswith('weight') or name.endswith('layer_scale_parameter')
    return (is_scale + 0.3 * value).astype(np.float32)
  return (1.4 * value / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def random_model(kind: str, config: dict, seed: int) -> torch.nn.Module:
  """A model in evaluation mode whose every parameter and running statistic is drawn from the seed."""
  theirs = getattr(transformers, f'{kind}Config')(**config, attn_implementation='eager')
  suffix = 'WithTeacher' if kind == 'DeiT' else ''
  model = getattr(transformers, f'{kind}ForImageClassification{suffix}')(theirs).eval()
  rng = np.random.default_rng(seed)
  with torch.no_grad():
    for name, tensor in model.state_dict().items():
      if tensor.is_floating_point():
        tensor.copy_(torch.from_numpy(random_value(rng, name, tuple(tensor.shape))))
  return model


def tensors(model: torch.nn.Module) -> dict[str, np.ndarray]:
  """All that the model saves and computes with, by transformers' names."""
  return {name: tensor.numpy() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def random_images(config: dict, size: tuple[int, int], batch_size: int, seed: int) -> np.ndarray:
  """Unit normal pictures, float32 [B, C, H, W]."""
  shape = (batch_size, config['num_channels'], *size)
  return np.random.default_rng([seed, 1]).standard_normal(shape).astype(np.float32)


def logits(model: torch.nn.Module, images_BCHW: np.ndarray) -> np.ndarray:
  """float32 [B, classes]."""
  with torch.no_grad():
    return model(torch.from_numpy(images_BCHW)).logits.numpy()


def case_arrays(case: str) -> dict[str, np.ndarray]:
  """What the file of this case holds."""
  (kind, config, size), seed = CASES[case], zlib.crc32(case.encode())
  model, images = random_model(kind, config, seed), random_images(config, size, 2, seed)
  return {'config': np.array(json.dumps(config)), 'images': images, 'logits': logits(model, images),
          **{f'param:{name}': value for name, value in tensors(model).items()}}


def main() -> None:
  """Writes every case beside this script."""
  print(f'torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}')
  for case in CASES:
    path = pathlib.Path(__file__).with_name(f'{case}.npz')
    np.savez_compressed(path, **case_arrays(case))
    print(f'{path.name}: {path.stat().st_size} bytes')


if __name__ == '__main__':
  main()
