"""Rendering of pictures for pages and files, with attention laid over them where asked for."""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

_SIDE = 192  # minimum length in pixels of the shorter side of a picture with an attention map


def heat(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Lays a heat map of weights over a picture; returns uint8 [h, w, 3].

  The picture is shown in dark grey, with bright colour where the weights are large. Colours are scaled to the largest
  weight.

  Args:
    picture: uint8 [H, W, 1 or 3].
    weights: non-negative float [rows, columns]; the grid covers the whole picture.
  """
  grey = Image.fromarray(picture[..., 0]) if picture.shape[2] == 1 else Image.fromarray(picture).convert('L')
  grey = np.asarray(enlarged(grey), np.float32) / 255
  top = float(weights.max()) or 1.0
  soft = Image.fromarray((weights / top).astype(np.float32)).resize(grey.shape[::-1], Image.Resampling.BICUBIC)
  share = np.clip(np.asarray(soft), 0, 1)
  color = matplotlib.colormaps['inferno'](share)[..., :3]
  opaque = 0.25 + 0.5 * share[..., None]
  return (255 * ((1 - opaque) * grey[..., None] * 0.9 + opaque * color)).round().astype(np.uint8)


def enlarged(image: Image.Image, side: int = _SIDE) -> Image.Image:
  """Enlarges a small picture, pixels becoming squares, until its shorter side has at least `side` pixels."""
  times = -(-side // min(image.size))
  return image if times <= 1 else image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def data_uri(picture: np.ndarray) -> str:
  """Encodes a picture uint8 [H, W, 1 or 3] as a data URI: PNG (lossless) if it is small, else JPEG."""
  image = Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)
  small, content = min(image.size) <= 64, io.BytesIO()
  if small:
    image.save(content, 'PNG', optimize=True)
  else:
    image.save(content, 'JPEG', quality=85)
  return f'data:image/{"png" if small else "jpeg"};base64,{base64.b64encode(content.getvalue()).decode()}'
