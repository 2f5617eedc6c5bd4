"""Small models of timm with random parameters, of any architecture of the registry."""

import pathlib
import zlib

import numpy as np
import timm
import torch
from compare import TOLERANCE, Outcome, compare, randomise

MOST = 60_000_000  # parameters
PREFIXES = ('vit', 'deit', 'swin', 'resnet', 'resnext', 'wide_resnet', 'regnet', 'convnext')


def names() -> list[str]:
  """The architectures of the registry that begin with a prefix."""
  return sorted({name for prefix in PREFIXES for name in timm.list_models(f'{prefix}*')})


def small(name: str, kind: str, arguments: dict) -> list[dict]:
  """Arguments that make an architecture small, tried in turn; each keeps what is not a size."""
  depth = dict(depth=2)
  if kind in ('VisionTransformer', 'VisionTransformerDistilled', 'VisionTransformerRelPos', 'Eva', 'NaFlexVit'):
    heads, patch = arguments.get('num_heads', 12), arguments.get('patch_size', 16)
    patch = patch if isinstance(patch, int) and patch > 1 else 16
    if arguments.get('ref_feat_shape'):  # rotary places are measured on this grid
      depth = dict(depth, ref_feat_shape=[4, 4])
      return [dict(depth, embed_dim=8 * heads, img_size=4 * patch), dict(depth, img_size=4 * patch)]
    return [dict(depth, embed_dim=8 * heads, img_size=[2 * patch, 3 * patch]),
            dict(depth, embed_dim=8 * heads, img_size=4 * patch), dict(depth, img_size=4 * patch), depth]
  if kind.startswith('SwinTransformer'):
    heads = arguments.get('num_heads', (3, 6, 12, 24))
    window = arguments.get('window_size', 7)
    window = window if isinstance(window, int) else min(window)
    shape = dict(embed_dim=8 * heads[0], depths=[2] * len(heads))
    return [dict(shape, img_size=8 * window), dict(shape, img_size=16 * window), shape, {}]
  if kind in ('ResNet', 'ResNetV2'):
    return [dict(layers=[1, 2, 1, 1], channels=[8 * (arguments.get('cardinality', 1) > 8) * 4 or 16, 32, 32, 64]),
            dict(layers=[1, 2, 1, 1]), {}]
  if kind == 'ConvNeXt':
    return [dict(depths=[1, 2, 1, 1], dims=[8, 16, 16, 24]), dict(depths=[1, 1, 1, 1]), {}]
  return [dict(depth=depth) for depth in (8, 12, 16)] + [{}] if kind == 'RegNet' else [{}]


def build(name: str, kind: str, arguments: dict) -> tuple[torch.nn.Module, dict] | str:
  """(model, its arguments), or what timm said when it could not be built."""
  said = ''
  for own in small(name, kind, arguments):
    try:
      with torch.device('meta'):
        size = sum(p.numel() for p in timm.create_model(name, pretrained=False, num_classes=7, **own).parameters())
      if size > MOST:
        said = f'{size:,} parameters, which is too large to try here'
        continue
      return timm.create_model(name, pretrained=False, num_classes=7, **own), own
    except Exception as error:  # whatever timm raises for sizes that do not go together
      said = f'{type(error).__name__}: {error}'
  return said


def outcome(name: str, model: torch.nn.Module, size: tuple[int, int], place: pathlib.Path, seed: int = 0) -> Outcome:
  """Saves a model as timm does, and compares the import."""
  key = [zlib.crc32(name.encode()), seed]
  channels = getattr(model, 'in_chans', 3)
  images = np.random.default_rng([*key, 1]).standard_normal((2, channels, *size)).astype(np.float32)
  try:
    for damping in (1, 4, 16, 64):
      theirs, own_error = _logits(randomise(model, key, damping), images)
      if own_error < 0.1 * TOLERANCE * max(1, np.abs(theirs).max()):
        break
    timm.models.save_for_hf(model, place, safe_serialization=True)
  except Exception as error:
    return Outcome(name, 'not built', f'{type(error).__name__}: {error}'[:200])
  if theirs.ndim != 2 or not np.isfinite(theirs).all():
    return Outcome(name, 'not built', f'outputs {theirs.shape}')
  return compare(name, place, images, theirs)


def _logits(model, images):
  """(logits, by how much those of float64 differ)."""
  with torch.no_grad():
    found = model(torch.from_numpy(images)).numpy()
    exact = model.double()(torch.from_numpy(images).double()).numpy()
    model.float()
  return found, np.abs(found - exact).max()


def input_size(model: torch.nn.Module) -> tuple[int, int]:
  """(height, width) of the pictures that a model takes."""
  grid = getattr(getattr(model, 'patch_embed', None), 'img_size', None)
  return tuple(grid) if grid else (64, 64)
