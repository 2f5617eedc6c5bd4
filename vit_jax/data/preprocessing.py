"""How a model wants its pictures: what of this travels with the weights."""

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
  """A picture becomes uint8 [H, W, C] on the host, and float32 (x / 255 - mean) / std on the device."""

  size: tuple[int, int]  # (height, width)
  channels: int = 3  # 1 (luma) or 3
  mean: tuple[float, ...] = (0.5,)  # of pixels from 0 to 1; one for each channel, or one for all
  std: tuple[float, ...] = (0.5,)
  interpolation: Literal['nearest', 'bilinear', 'bicubic', 'lanczos'] = 'bilinear'
  crop: float = 1.0  # centre crop / resized short side
  squeeze: bool = False  # a picture of other proportions is squeezed, not cropped to these

  def per_channel(self) -> tuple[list[float], list[float]]:
    """Mean and deviation, one for each channel."""
    return tuple(list(values) * (1 if len(values) > 1 else self.channels) for values in (self.mean, self.std))

  def prepare(self, image: str | os.PathLike | bytes | np.ndarray) -> np.ndarray:
    """uint8 [H, W, C] of a path, an encoded picture or an array uint8 [h, w, c]. Raises pictures.BadPicture."""
    if isinstance(image, (str, os.PathLike)):
      try:
        image = pathlib.Path(image).read_bytes()
      except OSError as error:
        raise pictures.BadPicture(error.strerror or str(error)) from error
    return self.frame(image, None)

  @property
  def frame(self) -> host_augment.ResizeCenterCrop:
    """What `prepare` does to an encoded picture or an array."""
    return host_augment.ResizeCenterCrop(self.size, self.channels, self.crop, self.interpolation, self.squeeze)

  def normalize(self, images_BHWC: jax.Array) -> jax.Array:
    """uint8 or float32 from 0 to 255 -> float32, as the model wants it."""
    mean, std = (jnp.asarray(value, jnp.float32).reshape(1, 1, 1, -1) for value in (self.mean, self.std))
    return (images_BHWC.astype(jnp.float32) / 255 - mean) / std


def alike(values) -> tuple[float, ...]:
  """One value where all channels have the same, else all."""
  values = tuple(map(float, values))
  return values[:1] if len(set(values)) == 1 else values


def parse(fields: Mapping[str, Any], where: str) -> Preprocessing:
  """The Preprocessing of values from a file. Raises UserError for those that mean nothing."""
  p = schema.cast(Preprocessing, fields, f'{where}: preprocessing')
  rules = [
    ('size', 1 <= min(p.size) and max(p.size) <= 1 << 16, 'a height and a width from 1 to 65536'),
    ('channels', p.channels in (1, 3), '1 or 3'),
    ('mean', len(p.mean) in (1, p.channels) and all(map(math.isfinite, p.mean)), 'one number a channel, or one'),
    ('std', len(p.std) in (1, p.channels) and all(0 < s < math.inf for s in p.std), 'positive, one a channel, or one'),
    ('crop', 0 < p.crop <= 1, 'above 0, at most 1'),
  ]
  for name, fine, right in rules:
    if not fine:
      raise UserError(f'{where}: preprocessing.{name}={getattr(p, name)!r}; must be {right}')
  return p
