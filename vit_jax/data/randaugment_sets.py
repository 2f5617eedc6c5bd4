"""RandAugment's operations as two published programs have them, for results that belong to these.

  timm         rand-..-inc1 of timm (data/auto_augment.py, 1.0.31): DeiT, Swin and ConvNeXt
  big_vision   big_vision's pp/archive/autoaugment.py, commit 0127fb6: ViT-S/16, MLP-Mixer, LiT

They differ from the paper's in their lists (no identity; inversion; solarisation of dark pixels, brightened; big_vision
also cuts a box out), in ranges and in interpolation. Operations are as in `randaugment`.
"""

import numpy as np

from vit_jax.data import randaugment


def _affine(resampling):
  """Geometric operations of one interpolation: (rotate, transform) by an angle or by six numbers."""
  def rotate(picture, degrees, fill):
    from PIL import Image
    return picture.rotate(degrees, Image.Resampling[resampling], fillcolor=fill)

  def transform(picture, numbers, fill):
    from PIL import Image
    return picture.transform(picture.size, Image.Transform.AFFINE, numbers, Image.Resampling[resampling],
                             fillcolor=fill)
  return rotate, transform


def _invert(picture, m, sign, fill, rng):
  from PIL import ImageOps
  return ImageOps.invert(picture)


def _posterized(bits):
  def apply(picture, m, sign, fill, rng):
    pixels = np.asarray(picture)
    from PIL import Image
    shift = 8 - max(bits(m), 0)
    return Image.fromarray((pixels >> shift << shift).astype(np.uint8) if shift < 8 else np.zeros_like(pixels))
  return apply


def _solarized(threshold):
  def apply(picture, m, sign, fill, rng):
    from PIL import ImageOps
    return ImageOps.solarize(picture, threshold(m))
  return apply


def _solarize_add(most):
  def apply(picture, m, sign, fill, rng):
    add = min(int(m * 110), most)
    return picture.point([min(255, i + add) if i < 128 else i for i in range(256)] * len(picture.getbands()))
  return apply


def _stronger(kind, factor):
  def apply(picture, m, sign, fill, rng):
    from PIL import ImageEnhance
    return getattr(ImageEnhance, kind)(picture).enhance(factor(m, sign))
  return apply


def _contrast(picture, m, sign, fill, rng):
  """big_vision's: the grey that it moves away from is (pixels / 256), at most 255, whatever is in the picture."""
  from PIL import Image
  grey = min(picture.width * picture.height // 256, 255)
  pixels = np.clip(grey + (1.8 * m + 0.1) * (np.asarray(picture, np.float32) - grey), 0, 255)
  return Image.fromarray(pixels.astype(np.uint8))


def _cut_out(picture, m, sign, fill, rng):
  from PIL import Image
  pixels, pad = np.array(picture), int(40 * m)
  y, x = rng.integers(picture.height), rng.integers(picture.width)
  pixels[max(y - pad, 0):y + pad, max(x - pad, 0):x + pad] = fill
  return Image.fromarray(pixels)


def _geometric(resampling, translate_x, translate_y):
  """The five geometric operations. The translations are (picture, m) -> pixels."""
  rotate, transform = _affine(resampling)
  return {
      'rotate': lambda p, m, sign, fill, rng: rotate(p, sign * 30 * m, fill),
      'shear_x': lambda p, m, sign, fill, rng: transform(p, (1, sign * 0.3 * m, 0, 0, 1, 0), fill),
      'shear_y': lambda p, m, sign, fill, rng: transform(p, (1, 0, 0, sign * 0.3 * m, 1, 0), fill),
      'translate_x': lambda p, m, sign, fill, rng: transform(p, (1, 0, sign * translate_x(p, m), 0, 1, 0), fill),
      'translate_y': lambda p, m, sign, fill, rng: transform(p, (1, 0, 0, 0, 1, sign * translate_y(p, m)), fill)}


_KINDS = {'color': 'Color', 'contrast': 'Contrast', 'brightness': 'Brightness', 'sharpness': 'Sharpness'}
_LEVEL = {name: randaugment.OPERATIONS[name] for name in ('auto_contrast', 'equalize')}  # have no magnitude

TIMM = {
    **_LEVEL, 'invert': _invert, 'posterize': _posterized(lambda m: 4 - int(4 * m)),
    'solarize': _solarized(lambda m: 256 - min(256, int(256 * m))), 'solarize_add': _solarize_add(128),
    **{name: _stronger(kind, lambda m, sign: max(0.1, 1 + sign * 0.9 * m)) for name, kind in _KINDS.items()},
    **_geometric('BICUBIC', lambda p, m: 0.45 * m * p.width, lambda p, m: 0.45 * m * p.height)}

# A threshold of 256 or more wraps around in uint8 there: at magnitude 10, solarisation is inversion.
BIG_VISION = {
    **_LEVEL, 'invert': _invert, 'posterize': _posterized(lambda m: min(int(4 * m), 8)),
    'solarize': _solarized(lambda m: int(256 * m) % 256), 'solarize_add': _solarize_add(255),
    **{name: _stronger(kind, lambda m, sign: 1.8 * m + 0.1) for name, kind in _KINDS.items()}, 'contrast': _contrast,
    **_geometric('NEAREST', lambda p, m: 100 * m, lambda p, m: 100 * m), 'cut_out': _cut_out}
