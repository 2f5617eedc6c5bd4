"""Preprocessing of pictures for a model. It is stored with the weights."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import schema
from vit_jax.data import host_augment, pictures
from vit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """How a picture becomes uint8 [H, W, C] on the host, and float32 (x / 255 - mean) / std on the device."""

  size: tuple[int, int]  # (height, width)
  channels: int = 3  # 1 (luma) or 3
  mean: tuple[float, ...] = (0.5,)  # of pixels from 0 to 1; one per channel, or one for all
  std: tuple[float, ...] = (0.5,)
  interpolation: Literal['nearest', 'bilinear', 'bicubic', 'lanczos'] = 'bilinear'
  crop: float = 1.0  # centre crop / resized short side
  squeeze: bool = False  # pictures of other proportions are squeezed instead of cropped
  # exact: the crop is cut out before it is resized, at fractions of pixels. floor: as transformers does, the picture is
  # resized to whole pixels, and the crop begins at a whole pixel, rounded down.
  pixels: Literal['exact', 'floor'] = 'exact'

  def per_channel(self) -> tuple[list[float], list[float]]:
    """(mean, std), each with one value per channel."""
    return tuple(list(values) * (1 if len(values) > 1 else self.channels) for values in (self.mean, self.std))

  def prepare(self, image: str | os.PathLike | bytes | np.ndarray) -> np.ndarray:
    """Prepares a picture, given as a path, encoded bytes or an array uint8 [h, w, c]; returns uint8 [H, W, C].

    Raises:
      pictures.BadPicture: the picture cannot be read.
    """
    if isinstance(image, (str, os.PathLike)):
      try:
        image = pathlib.Path(image).read_bytes()
      except OSError as error:
        raise pictures.BadPicture(error.strerror or str(error)) from error
    return self.frame(image, None)

  @property
  def frame(self) -> host_augment.ResizeCenterCrop:
    """The transform that `prepare` applies to an encoded picture or an array."""
    return host_augment.ResizeCenterCrop(self.size, self.channels, self.crop, self.interpolation, self.squeeze,
                                         self.pixels)

  def normalize(self, images_BHWC: jax.Array) -> jax.Array:
    """Normalises uint8 or float32 values from 0 to 255 to the float32 inputs of the model."""
    mean, std = (jnp.asarray(value, jnp.float32).reshape(1, 1, 1, -1) for value in (self.mean, self.std))
    return (images_BHWC.astype(jnp.float32) / 255 - mean) / std


def alike(values) -> tuple[float, ...]:
  """The values as a tuple of floats, reduced to one if all are equal."""
  values = tuple(map(float, values))
  return values[:1] if len(set(values)) == 1 else values


def parse(fields: Mapping[str, Any], where: str) -> Preprocessing:
  """The Preprocessing of values from a file. Raises UserError for values out of range."""
  p = schema.cast(Preprocessing, fields, f'{where}: preprocessing')
  rules = [
    ('size', 1 <= min(p.size) and max(p.size) <= 1 << 16, 'a height and a width from 1 to 65536'),
    ('channels', p.channels in (1, 3), '1 or 3'),
    ('mean', len(p.mean) in (1, p.channels) and all(map(math.isfinite, p.mean)),
     'one number per channel, or one for all'),
    ('std', len(p.std) in (1, p.channels) and all(0 < s < math.inf for s in p.std),
     'positive, one per channel, or one for all'),
    ('crop', 0 < p.crop <= 1, 'above 0, at most 1'),
  ]
  for name, fine, right in rules:
    if not fine:
      raise UserError(f'{where}: preprocessing.{name}={getattr(p, name)!r}; must be {right}')
  return p
