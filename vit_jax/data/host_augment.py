"""Transforms of one picture on the host: decoding, cropping and colour. The result is uint8 [H,W,C].

Each is a frozen dataclass that is called with a picture and the generator of (seed, step, global row). Cropping after
padding, flips, erasing, Mixup and CutMix are applied to whole batches on the device; see `device_augment`.
"""

import dataclasses
import math

import numpy as np

from vit_jax.data import pictures
from vit_jax.data.config import Augment, eval_crop
from vit_jax.data.randaugment import RandAugment

_HOST = 0x4854


def generator(seed: int, step: int, row: int) -> np.random.Generator:
  """The random generator of one row of one global batch, independent of the process that reads it."""
  key = np.array([seed % 2**64, _HOST], np.uint64)  # a plain list would go through float64 and lose bits
  return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, row, step]))


_LONGEST = 20  # proportions: longer pictures are not resized as a whole, which might take more memory than there is


@dataclasses.dataclass(frozen=True)
class ResizeCenterCrop:
  """A centre crop, resized to `size`. The crop is `ratio` times the largest box with the proportions of `size`.

  A ratio of 0.875 is the usual "resize to 256, crop 224". With `squeeze`, the box has the proportions of the picture.
  """

  size: tuple[int, int]  # (height, width)
  channels: int
  ratio: float = 1.0
  interpolation: str = 'bilinear'
  squeeze: bool = False
  pixels: str = 'exact'  # see `preprocessing.Preprocessing`
  random = False

  def __call__(self, record: bytes | np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    height, width = pictures.size(record)
    if self.pixels == 'floor' and max(height, width) <= _LONGEST * min(height, width):
      whole = self.whole(height, width)
      top, left = ((side - size) // 2 for side, size in zip(whole, self.size))
      resized = pictures.decode(record, self.channels, None, whole, self.interpolation, shrink=False)
      return np.ascontiguousarray(resized[top:top + self.size[0], left:left + self.size[1]])
    return pictures.decode(record, self.channels, self._exact(height, width), self.size, self.interpolation)

  def whole(self, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the whole picture when it is resized to whole pixels."""
    if self.squeeze:
      return tuple(round(size / self.ratio) for size in self.size)
    short = round(min(self.size) / self.ratio)
    return tuple(short if size == min(height, width) else int(short * size / min(height, width))
                 for size in (height, width))

  def _exact(self, height, width):
    scale = self.ratio * min(height / self.size[0], width / self.size[1])
    box_height, box_width = self.size[0] * scale, self.size[1] * scale
    if self.squeeze:
      box_height, box_width = self.ratio * height, self.ratio * width
    top, left = (height - box_height) / 2, (width - box_width) / 2
    return max(left, 0), max(top, 0), min(left + box_width, width), min(top + box_height, height)


@dataclasses.dataclass(frozen=True)
class InceptionCrop:
  """A random box, resized (Szegedy et al. 2015, section 6): area U(min_area, 1), aspect 3/4 to 4/3, log-uniform.

  If ten boxes do not fit, it is the largest centred box with an allowed aspect. The box is drawn before decoding, from
  the size in the header, so that only the box is decoded (`pictures.decode_quickly`).
  """

  size: tuple[int, int]
  channels: int
  min_area: float = 0.08
  interpolation: str = 'bilinear'
  random = True

  def __call__(self, record: bytes | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    box = self.box(*pictures.size(record), rng)
    return pictures.decode_quickly(record, self.channels, box, self.size, self.interpolation)

  def box(self, height: int, width: int, rng: np.random.Generator) -> pictures.Box:
    """A random (left, top, right, bottom) in a picture of height x width pixels."""
    for _ in range(10):
      area = rng.uniform(self.min_area, 1) * height * width
      aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
      w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
      if 0 < w <= width and 0 < h <= height:
        left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        return left, top, left + w, top + h
    w, h = min(width, height * 4 / 3), min(height, width * 4 / 3)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


@dataclasses.dataclass(frozen=True)
class SimpleCrop:
  """The largest centred box, resized, padded by `padding` mirrored pixels, and cropped at random.

  This is the "simple random crop" of DeiT III (Touvron et al. 2022, sec. 3.2). It shows most of every picture.
  """

  size: tuple[int, int]
  channels: int
  padding: int = 4
  interpolation: str = 'bilinear'
  random = True

  def __call__(self, record: bytes | np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = ResizeCenterCrop(self.size, self.channels, interpolation=self.interpolation)(record, None)
    pad = self.padding
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode='reflect')
    top, left = rng.integers(2 * pad + 1, size=2)
    return padded[top:top + self.size[0], left:left + self.size[1]]


@dataclasses.dataclass(frozen=True)
class ThreeAugment:
  """Greyscale, solarisation or blur, each with probability 1/3: DeiT III's 3-Augment (Touvron et al. 2022, sec. 3.1).

  Its flips and colour jitter are separate options. As in its code, solarisation inverts values of 128 and above, and
  the radius of the blur is U(0.1, 2) pixels.
  """

  random = True

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image, ImageFilter, ImageOps
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    which, radius = rng.integers(3), rng.uniform(0.1, 2)
    if which == 0:
      picture = picture.convert('L').convert(picture.mode)
    elif which == 1:
      picture = ImageOps.solarize(picture, 128)
    else:
      picture = picture.filter(ImageFilter.GaussianBlur(radius))
    pixels = np.asarray(picture)
    return pixels[..., None] if grey else pixels


@dataclasses.dataclass(frozen=True)
class ColorJitter:
  """Multiplies brightness, contrast and saturation by U(1 - strength, 1 + strength) each, in random order.

  As in Howard 2013 ("Some improvements on deep convolutional neural network based image classification").
  """

  strength: float
  random = True

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image, ImageEnhance
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    grey = image.shape[2] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    for which, factor in zip(rng.permutation(3), rng.uniform(1 - self.strength, 1 + self.strength, 3)):
      if not (grey and enhancers[which] is ImageEnhance.Color):
        picture = enhancers[which](picture).enhance(float(factor))
    pixels = np.asarray(picture)
    return pixels[..., None] if grey else pixels


def eval_transforms(augment: Augment, size: tuple[int, int], channels: int, interpolation: str = 'bilinear') -> tuple:
  """The transforms for evaluation: (ResizeCenterCrop,)."""
  return (ResizeCenterCrop(size, channels, eval_crop(augment), interpolation),)


def train_transforms(augment: Augment, size: tuple[int, int], channels: int, interpolation: str = 'bilinear',
                     mean: tuple[float, ...] = (0.5,)) -> tuple:
  """The transforms for training: a crop, then the colour operations that are on. `mean` is that of the pixels."""
  if augment.crop == 'inception':
    steps = [InceptionCrop(size, channels, augment.crop_min_area, interpolation)]
  elif augment.crop == 'simple':
    steps = [SimpleCrop(size, channels, augment.crop_padding, interpolation)]
  else:
    steps = [ResizeCenterCrop(size, channels, interpolation=interpolation)]
  if augment.randaugment_layers:
    fill = mean if augment.randaugment_fill == 'mean' else RandAugment.fill
    steps.append(RandAugment(augment.randaugment_layers, augment.randaugment_magnitude,
                             augment.randaugment_probability, augment.randaugment_noise, fill,
                             augment.randaugment_operations))
  if augment.three_augment:
    steps.append(ThreeAugment())
  if augment.color_jitter:
    steps.append(ColorJitter(augment.color_jitter))
  return tuple(steps)
