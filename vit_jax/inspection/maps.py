"""`--attention`: a folder of attention maps, one file per picture."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from etils import epath

from vit_jax.inspection import attention, figures
from vit_jax.interop.classifier import Classifier


class Maps:
  """Writes the attention maps of pictures batch by batch, and at the end the mean attention distance over all."""

  def __init__(self, model: Classifier, out: os.PathLike | str):
    """Raises UserError for a model without global attention."""
    attention.check(model)
    self._model, self._folder, self._names = model, epath.Path(out), set()
    self._distance, self._even, self._seen = 0.0, 0.0, 0
    self._folder.mkdir(parents=True, exist_ok=True)

  def see(self, paths: Sequence[str], images: Sequence[np.ndarray], captions: Sequence[str]) -> None:
    """Writes NAME.png for each picture uint8 [H, W, C], prepared for the model.

    A number is appended to a name that is already taken.
    """
    found = attention.attention(self._model, images)
    for path, image, caption, last, rolled in zip(paths, images, captions, found.last, found.rollout, strict=True):
      figures.write_attention(self._folder, self._name(path), image, last, rolled, caption)
    self._distance, self._even = self._distance + found.distance * len(images), found.even
    self._seen += len(images)

  def close(self) -> str:
    """Writes distance.png; returns a phrase that says where the files are."""
    figures.write_distance(self._folder, 'distance', self._distance / self._seen, self._even)
    return f'{self._folder} (a file for each of {self._seen:,} pictures, and distance.png)'

  def _name(self, path):
    stem = name = pathlib.Path(path).stem
    taken = {'distance', *self._names}
    number = 2
    while name in taken:
      name, number = f'{stem}-{number}', number + 1
    self._names.add(name)
    return name
