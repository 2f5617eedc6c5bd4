"""RandAugment (Cubuk et al. 2019): a few out of fourteen operations, all at the same magnitude.

The operations are those of the paper's figure 2, with the ranges of AutoAugment (Cubuk et al. 2018, table 6). There is
one change, which has since become common: every operation gets stronger with the magnitude. (In the original, colour,
contrast, brightness and sharpness are the identity at magnitude 5, and posterize and solarize get weaker.) Published
programs have other lists and ranges: `randaugment_sets`.

An operation is a function (picture of Pillow, magnitude / 10, sign, fill, generator) -> picture.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class RandAugment:
  """Applies `layers` operations, drawn with replacement, at `magnitude` 0 (nothing) to 10.

  Attributes:
    layers: how many operations.
    magnitude: of each.
    probability: with which each is applied.
    noise: the deviation of each magnitude around `magnitude`, which stays from 0 to 10.
    fill: values from 0 to 1 of what geometric operations leave empty, one per channel or one for all.
    operations: 'paper' (those of this file), 'timm' or 'big_vision'; in the last, magnitudes go on to 30.
  """

  layers: int = 2
  magnitude: float = 10.0
  probability: float = 1.0
  noise: float = 0.0
  fill: tuple[float, ...] = (128 / 255,)
  operations: Literal['paper', 'timm', 'big_vision'] = 'paper'
  random = True

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Augments a picture uint8 [H,W,C], with C 1 or 3."""
    from PIL import Image
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    fill = tuple(round(255 * value) for value in self.fill) * (3 if len(self.fill) == 1 and not grey else 1)
    fill = fill[0] if grey else fill
    operations = published(self.operations)
    for name in rng.choice(tuple(operations), size=self.layers):
      sign = 1 if rng.integers(2) else -1
      if self.probability < 1 and rng.random() >= self.probability:
        continue
      most = max(10, self.magnitude)
      magnitude = min(max(rng.normal(self.magnitude, self.noise), 0), most) if self.noise else self.magnitude
      picture = operations[str(name)](picture, magnitude / 10, sign, fill, rng)
    pixels = np.asarray(picture)
    return pixels[..., None] if grey else pixels


def _affine(picture, fill, a, b, c, d, e, f):
  """Transforms a picture so that output (x, y) is input (ax + by + c, dx + ey + f)."""
  from PIL import Image
  return picture.transform(picture.size, Image.Transform.AFFINE, (a, b, c, d, e, f), Image.Resampling.BILINEAR,
                           fillcolor=fill)


def _rotate(picture, m, sign, fill, rng):
  from PIL import Image
  return picture.rotate(sign * 30 * m, Image.Resampling.BILINEAR, fillcolor=fill)


def _shear_x(picture, m, sign, fill, rng):
  return _affine(picture, fill, 1, sign * 0.3 * m, 0, 0, 1, 0)


def _shear_y(picture, m, sign, fill, rng):
  return _affine(picture, fill, 1, 0, 0, sign * 0.3 * m, 1, 0)


def _translate_x(picture, m, sign, fill, rng):
  return _affine(picture, fill, 1, 0, sign * 0.45 * m * picture.width, 0, 1, 0)


def _translate_y(picture, m, sign, fill, rng):
  return _affine(picture, fill, 1, 0, 0, 0, 1, sign * 0.45 * m * picture.height)


def _auto_contrast(picture, m, sign, fill, rng):
  from PIL import ImageOps
  return ImageOps.autocontrast(picture)


def _equalize(picture, m, sign, fill, rng):
  from PIL import ImageOps
  return ImageOps.equalize(picture)


def _posterize(picture, m, sign, fill, rng):
  from PIL import ImageOps
  return ImageOps.posterize(picture, 8 - round(4 * m))


def _solarize(picture, m, sign, fill, rng):
  from PIL import ImageOps
  return ImageOps.solarize(picture, 256 - round(256 * m))


def _enhance(kind):
  def apply(picture, m, sign, fill, rng):
    from PIL import ImageEnhance
    return getattr(ImageEnhance, kind)(picture).enhance(1 + sign * 0.9 * m)
  return apply


OPERATIONS = {
  'identity': lambda picture, m, sign, fill, rng: picture,
  'auto_contrast': _auto_contrast,
  'equalize': _equalize,
  'rotate': _rotate,
  'solarize': _solarize,
  'color': _enhance('Color'),
  'posterize': _posterize,
  'contrast': _enhance('Contrast'),
  'brightness': _enhance('Brightness'),
  'sharpness': _enhance('Sharpness'),
  'shear_x': _shear_x,
  'shear_y': _shear_y,
  'translate_x': _translate_x,
  'translate_y': _translate_y,
}


def published(name: str) -> dict[str, Callable]:
  """The operations by their names; see `RandAugment.operations`."""
  if name == 'paper':
    return OPERATIONS
  from vit_jax.data import randaugment_sets
  return {'timm': randaugment_sets.TIMM, 'big_vision': randaugment_sets.BIG_VISION}[name]
