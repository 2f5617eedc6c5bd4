"""How a model wants its pictures: what of this travels with the weights."""

import dataclasses
import os
import pathlib
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data import pictures, transforms


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """A picture becomes uint8 [H, W, C] on the host, and float32 (x / 255 - mean) / std on the device."""

  size: tuple[int, int]  # (height, width)
  channels: int = 3  # 1 (luma) or 3
  mean: tuple[float, ...] = (0.5,)  # of pixels from 0 to 1; one for each channel, or one for all
  std: tuple[float, ...] = (0.5,)
  interpolation: Literal['nearest', 'bilinear', 'bicubic', 'lanczos'] = 'bilinear'
  crop: float | None = 1.0  # centre crop / resized short side; None: the whole picture is squeezed into the size

  def prepare(self, image: str | os.PathLike | bytes | np.ndarray) -> np.ndarray:
    """uint8 [H, W, C] of a path, an encoded picture or an array uint8 [h, w, c]. Raises pictures.BadPicture."""
    if isinstance(image, (str, os.PathLike)):
      try:
        image = pathlib.Path(image).read_bytes()
      except OSError as error:
        raise pictures.BadPicture(error.strerror or str(error)) from error
    if self.crop is None:
      return pictures.decode(image, self.channels, None, self.size, self.interpolation)
    return transforms.ResizeCenterCrop(self.size, self.channels, self.crop, self.interpolation)(image, None)

  def normalize(self, images_BHWC: jax.Array) -> jax.Array:
    """uint8 or float32 from 0 to 255 -> float32, as the model wants it."""
    mean, std = (jnp.asarray(value, jnp.float32).reshape(1, 1, 1, -1) for value in (self.mean, self.std))
    return (images_BHWC.astype(jnp.float32) / 255 - mean) / std
