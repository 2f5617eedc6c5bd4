"""The data options of a run. Fields and their defaults are defined only here."""

import dataclasses
from typing import Literal

from vit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augment:
  """Random augmentation of training pictures, and the crop of pictures in evaluation."""

  # none: largest centred box; pad: random crop after padding; inception: random box (Szegedy et al. 2015, sec. 6);
  # simple: like pad, but with mirrored padding (Touvron et al. 2022, sec. 3.2)
  crop: Literal['none', 'pad', 'inception', 'simple'] = 'none'
  crop_padding: int = 4  # pixels on each side before a random crop, black (crop='pad') or mirrored (crop='simple')
  crop_min_area: float = 0.08  # smallest fraction of the picture's area that is kept (crop='inception')
  flip: bool = False  # left-right, with probability 1/2
  randaugment_layers: int = 0  # operations per picture; 0 = off
  randaugment_magnitude: float = 10.0  # 0 (nothing) to 10 (strongest)
  three_augment: bool = False  # one of greyscale, solarisation, blur (DeiT III; use with color_jitter=0.3)
  color_jitter: float = 0.0  # factors U(1 - x, 1 + x) on brightness, contrast and saturation
  random_erasing: float = 0.0  # probability
  mixup: float = 0.0  # alpha of Beta(alpha, alpha); 0 = off; if cutmix is also on, each gets half of the pictures
  cutmix: float = 0.0  # alpha
  repeats: int = 1  # times that each picture occurs in a batch, augmented independently (Hoffer et al. 2020)
  eval_crop: float | None = None  # centre crop / resized short side; None = 0.875 with crop='inception', else 1


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The source of the pictures, how many are used, and how they are batched.

  The splits for val, test and subsets depend only on the data, never on a run's seed: they are the same for every model
  of a sweep.
  """

  source: str = 'digits'  # digits, fashion_mnist, idx:DIR, folder:DIR, tfds:NAME[:CONFIG], random[:N]
  data_dir: str | None = None  # where TFDS keeps its data; folder:DIR and idx:DIR are looked up under it
  image_size: tuple[int, int] | None = None  # (height, width); None = the source's own
  channels: int | None = None  # 1 (luma) or 3 (grey is repeated); None = the source's own
  mean: tuple[float, ...] | None = None  # of pixels from 0 to 1, one per channel or one for all; None = 0.5
  std: tuple[float, ...] | None = None  # divisor of pixels after subtracting the mean; None = 0.5
  interpolation: Literal['nearest', 'bilinear', 'bicubic', 'lanczos'] | None = None  # None = bilinear
  num_classes: int | None = None  # for source='random' and for planning without the data; else checked against it
  batch_size: int = 128
  unique_examples: int | None = None  # size of a class-balanced, nested training subset; None or 0 = all
  val_examples: int | None = None  # None = the source's own val, else 10% of train, at most 10,000; 0 = none
  on_error: Literal['stop', 'skip'] = 'stop'  # if a picture cannot be read: end the run, or give it weight 0
  augment: Augment = dataclasses.field(default_factory=Augment)


def check(config: DataConfig) -> None:
  """Raises a UserError for a value outside its range; opens nothing."""
  augment = config.augment
  rules = [
    ('batch_size', config.batch_size >= 1, '1 or more'),
    ('image_size', config.image_size is None or min(config.image_size) >= 1, 'positive (height, width)'),
    ('channels', config.channels in (None, 1, 3), '1 or 3'),
    ('mean', config.mean is None or len(config.mean) in (1, 3), 'one number, or one a channel'),
    ('std', config.std is None or len(config.std) in (1, 3) and min(config.std) > 0,
     'positive: one number, or one a channel'),
    ('num_classes', config.num_classes is None or config.num_classes >= 2, '2 or more'),
    ('unique_examples', (config.unique_examples or 0) >= 0, '0 (all) or more'),
    ('val_examples', (config.val_examples or 0) >= 0, '0 or more'),
    ('augment.crop_padding', augment.crop_padding >= 1, '1 or more; crop="none" switches cropping off'),
    ('augment.crop_min_area', 0 < augment.crop_min_area <= 1, 'above 0, at most 1'),
    ('augment.randaugment_layers', augment.randaugment_layers >= 0, '0 or more'),
    ('augment.randaugment_magnitude', 0 <= augment.randaugment_magnitude <= 10, 'from 0 to 10'),
    ('augment.color_jitter', 0 <= augment.color_jitter <= 1, 'from 0 to 1'),
    ('augment.random_erasing', 0 <= augment.random_erasing <= 1, 'a probability'),
    ('augment.mixup', augment.mixup >= 0, '0 or more'),
    ('augment.cutmix', augment.cutmix >= 0, '0 or more'),
    ('augment.repeats', 1 <= augment.repeats <= config.batch_size, 'from 1 to data.batch_size'),
    ('augment.eval_crop', augment.eval_crop is None or 0 < augment.eval_crop <= 1, 'above 0, at most 1'),
  ]
  for key, fine, right in rules:
    if not fine:
      value = config
      for part in key.split('.'):
        value = getattr(value, part)
      raise UserError(f'data.{key}: {value!r}; must be {right}')


def eval_crop(augment: Augment) -> float:
  """The fraction of the resized short side that evaluation keeps, with the default filled in."""
  if augment.eval_crop is not None:
    return augment.eval_crop
  return 0.875 if augment.crop == 'inception' else 1.0
