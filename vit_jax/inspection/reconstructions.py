"""`predict --reconstruct`: what a masked autoencoder draws where patches of a picture were left out."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from PIL import Image

from vit_jax.data.preprocessing import Preprocessing
from vit_jax.inspection import own_model
from vit_jax.inspection.overlay import enlarged
from vit_jax.layers.patch_embed import patchify, unpatchify

_GREY = 0.5  # of patches that were left out, from 0 to 1


@dataclasses.dataclass(frozen=True)
class Painter:
  """A masked autoencoder in use.

  Attributes:
    preprocessing: how a picture becomes an input.
    draw: uint8 [B, H, W, C] -> uint8 [B, 3, H, W, C]: the picture, what is kept of it, what the model makes of that.
  """
  preprocessing: Preprocessing
  draw: Callable[[np.ndarray], np.ndarray]


def load(workdir: os.PathLike, step: int | None = None) -> Painter:
  """The model of a run of objective=reconstruct, with its decoder. Raises UserError for another run."""
  own = own_model.load(workdir, step, 'reconstruct')
  return Painter(own.weights.preprocessing, _drawing(own.model, own.weights.params, own.weights.preprocessing))


def _drawing(model, params, prepare):
  objective = model.objective

  @jax.jit
  def draw(params, images):
    plain = lambda images, targets, weights: (prepare.normalize(images), targets)
    batch = {'image': images, 'weight': jnp.ones(len(images))}
    batch = objective.prepare(model, batch, plain, jax.random.split(jax.random.key(0), len(images)))
    outputs, _ = model.call(params, {}, lambda module: objective.forward(module, batch))
    original_BTP = patchify(batch['image'], model.config.patch_size)
    drawn_BTP = outputs['pixels']
    if objective.config.normalize_targets:  # as in the paper's figures, the patches' own mean and deviation are used
      mean, deviation = objective.normalization(original_BTP)
      drawn_BTP = drawn_BTP * deviation + mean
    mask_BT1 = outputs['mask'][..., None]
    grey = prepare.normalize(jnp.full_like(images, round(255 * _GREY)))
    kept_BTP = jnp.where(mask_BT1 > 0, patchify(grey, model.config.patch_size), original_BTP)
    drawn_BTP = jnp.where(mask_BT1 > 0, drawn_BTP, original_BTP)
    return jnp.stack([unpatchify(x, model.image_shape, model.config.patch_size)
                      for x in (original_BTP, kept_BTP, drawn_BTP)], axis=1)

  mean, std = (np.asarray(values, np.float32) for values in (prepare.mean, prepare.std))
  pixels = lambda x: (255 * (np.asarray(x) * std + mean)).round().clip(0, 255).astype(np.uint8)
  return lambda images: pixels(draw(params, images))


def write(painter: Painter, paths: Sequence[str], images: Sequence[np.ndarray], folder: os.PathLike) -> None:
  """Writes NAME.png for each prepared picture uint8 [H, W, C]: picture, mask and reconstruction side by side."""
  folder = epath.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for path, three in zip(paths, painter.draw(np.stack(images)), strict=True):
    parts = [enlarged(Image.fromarray(x[..., 0] if x.shape[2] == 1 else x)) for x in three]
    gap, (width, height) = 8, parts[0].size
    sheet = Image.new(parts[0].mode, (3 * width + 2 * gap, height), 'white')
    for i, part in enumerate(parts):
      sheet.paste(part, (i * (width + gap), 0))
    name = _free(folder, pathlib.Path(path).stem)
    with (folder / f'{name}.png').open('wb') as file:
      sheet.save(file, 'PNG')


def _free(folder, stem):
  """A name that no file in the folder has."""
  name, number = stem, 2
  while (folder / f'{name}.png').exists():
    name, number = f'{stem}-{number}', number + 1
  return name
