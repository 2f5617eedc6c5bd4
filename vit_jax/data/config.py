"""The data options of a run. Fields and their defaults are defined only here."""

import dataclasses
from typing import Literal

from vit_jax import options
from vit_jax.data.text import TextConfig
from vit_jax.errors import UserError
from vit_jax.options import option


@dataclasses.dataclass(frozen=True)
class Augment:
  """Random augmentation of training pictures, and the crop of pictures in evaluation."""

  # none: largest centred box; pad: random crop after padding; inception: random box (Szegedy et al. 2015, sec. 6);
  # simple: like pad, but with mirrored padding (Touvron et al. 2022, sec. 3.2)
  crop: Literal['none', 'pad', 'inception', 'simple'] = 'none'
  # Pixels on each side before a random crop, black (crop='pad') or mirrored (crop='simple').
  crop_padding: int = option(4, least=1, most=16_384, hint='crop=none switches cropping off')
  # Smallest fraction of the picture's area that is kept (crop='inception').
  crop_min_area: float = option(0.08, above=0, most=1)
  flip: bool = False  # left-right, with probability 1/2
  randaugment_layers: int = option(0, most=100)  # operations per picture; 0 = off
  randaugment_operations: Literal['paper', 'timm', 'big_vision'] = 'paper'  # whose list and ranges (`randaugment_sets`)
  randaugment_magnitude: float = option(10.0, most=30)  # 0 (nothing) to 10 (strongest); in big_vision's, to 30
  randaugment_probability: float = option(1.0, most=1)  # with which each operation is applied
  randaugment_noise: float = option(0.0, most=10)  # standard deviation of each operation's magnitude
  randaugment_fill: Literal['grey', 'mean'] = 'grey'  # of what operations leave empty: 128, or data.mean
  three_augment: bool = False  # one of greyscale, solarisation, blur (DeiT III; use with color_jitter=0.3)
  color_jitter: float = option(0.0, most=1)  # factors U(1 - x, 1 + x) on brightness, contrast and saturation
  random_erasing: float = option(0.0, most=1)  # probability
  # Alpha of Beta(alpha, alpha); 0 = off; if cutmix is also on, each gets half of the pictures.
  mixup: float = option(0.0, least=1e-3, most=1_000, off=0)
  cutmix: float = option(0.0, least=1e-3, most=1_000, off=0)  # alpha
  # Times that each picture occurs in a batch, augmented independently (Hoffer et al. 2020).
  repeats: int = option(1, least=1)
  # Centre crop / resized short side; None = 0.875 with crop='inception', else 1.
  eval_crop: float | None = option(None, least=0.1, most=1)


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """The source of the pictures, how many are used, and how they are batched.

  The splits for val, test and subsets depend only on the data, never on a run's seed: they are the same for every model
  of a sweep.
  """

  # digits, fashion_mnist, idx:DIR, folder:DIR, csv:FILE, tfds:NAME[:CONFIG], random[:N]; with captions: pairs:DIR,
  # emoji:LANGUAGE,.., icons, stamps, clipart (the last four perhaps with @ARTIST, who is held out as test); or one of
  # yours, package.module:NAME
  source: str = 'digits'
  # Where TFDS and `data.prepare` keep their data; folder:DIR, csv:FILE, pairs:DIR and idx:DIR are looked up under it.
  data_dir: str | None = None
  # Of csv:FILE, and of folder:DIR with a labels.csv: the column of the classes, or those of 0 and 1. None: found.
  label_columns: tuple[str, ...] | None = None
  # Between several classes of a picture in one value, such as '|' or ' '; None: a value is one class.
  label_separator: str | None = None
  image_size: tuple[int, int] | None = option(None, least=1, most=16_384)  # (height, width); None = the source's own
  channels: int | None = option(None, least=1, most=3)  # 1 (luma) or 3 (grey is repeated); None = the source's own
  # Of pixels from 0 to 1, one per channel or one for all; None = 0.5.
  mean: tuple[float, ...] | None = option(None, most=1, longest=3)
  # Divisor of pixels after subtracting the mean; None = 0.5.
  std: tuple[float, ...] | None = option(None, least=1e-3, most=1_000, longest=3)
  interpolation: Literal['nearest', 'bilinear', 'bicubic', 'lanczos'] | None = None  # None = bilinear
  # For source='random' and for planning without the data; else checked against it.
  num_classes: int | None = option(None, least=2, most=1_000_000)
  batch_size: int = option(128, least=1, most=2**20)
  unique_examples: int | None = None  # size of a class-balanced, nested training subset; None or 0 = all
  val_examples: int | None = None  # None = the source's own val, else 10% of train, at most 10,000; 0 = none
  on_error: Literal['stop', 'skip'] = 'stop'  # if a picture cannot be read: end the run, or give it weight 0
  augment: Augment = dataclasses.field(default_factory=Augment)
  text: TextConfig = TextConfig()


def check(config: DataConfig) -> None:
  """Raises a UserError for a value outside its range; opens nothing."""
  options.check(config, 'data')
  if config.channels not in (None, 1, 3):
    raise UserError(f'data.channels={config.channels}: must be 1 or 3')
  for name in ('mean', 'std'):
    if (values := getattr(config, name)) is not None and len(values) not in {1, config.channels or 3}:
      raise UserError(f'data.{name}={values}: must be one number, or one for each channel (data.channels='
                      f'{config.channels})')
  magnitude, whose = config.augment.randaugment_magnitude, config.augment.randaugment_operations
  if magnitude > 10 and whose != 'big_vision':
    raise UserError(f'data.augment.randaugment_magnitude={magnitude}: must be at most 10 with '
                    f'data.augment.randaugment_operations={whose}; big_vision goes on to 30')
  if config.augment.repeats > config.batch_size:
    raise UserError(f'data.augment.repeats={config.augment.repeats}: must be at most data.batch_size='
                    f'{config.batch_size}')


def check_pictures(config: DataConfig, image_size: tuple[int, int], channels: int) -> None:
  """Raises a UserError for what does not suit pictures of this size (height, width) and this number of channels."""
  for name in ('mean', 'std'):
    if (values := getattr(config, name)) is not None and len(values) not in {1, channels}:
      raise UserError(f'data.{name}={values}: {len(values)} numbers for pictures of {channels} channel'
                      f'{"s" if channels > 1 else ""}; must be one number, or one for each channel; data.channels=3 '
                      'makes grey pictures RGB')
  padding = config.augment.crop_padding
  if config.augment.crop in ('pad', 'simple') and padding >= min(image_size):
    raise UserError(f'data.augment.crop_padding={padding}: must be less than the sides of the pictures, '
                    f'{image_size[0]}x{image_size[1]}')


def unbatched(config: DataConfig) -> DataConfig:
  """The config without batches and augmentation: equal for runs that open the same data."""
  return dataclasses.replace(config, batch_size=1, augment=Augment())


def eval_crop(augment: Augment) -> float:
  """The fraction of the resized short side that evaluation keeps, with the default filled in."""
  if augment.eval_crop is not None:
    return augment.eval_crop
  return 0.875 if augment.crop == 'inception' else 1.0
