"""The common interface of models in use: pictures in, probabilities out."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
  """Maps pictures to probabilities. Subclasses implement `forward`.

  Attributes:
    class_names: the names of the classes, in the order of the probabilities.
    preprocessing: the preparation of pictures.
    several_labels: whether a picture can have several classes, or none. Then the probabilities are of each class by
      itself; else they sum to 1.
    temperature: what the logits were divided by, so that the probabilities are as often right as they say.
  """
  class_names: tuple[str, ...]
  preprocessing: Preprocessing
  several_labels: bool = False
  temperature: float = 1.0

  def __call__(self, images: Sequence[str | os.PathLike | bytes | np.ndarray], batch_size: int = 64) -> np.ndarray:
    """Probabilities, float32 [n, classes].

    Args:
      images: paths, encoded pictures, or uint8 arrays [H, W, C].
      batch_size: the number of pictures computed at a time.

    Raises:
      pictures.BadPicture: a picture cannot be read.
    """
    return self.probabilities([self.prepare(image) for image in images], batch_size)

  def prepare(self, image: str | os.PathLike | bytes | np.ndarray) -> np.ndarray:
    """Prepares a picture for the model: uint8 [H, W, C]. Raises BadPicture."""
    return self.preprocessing.prepare(image)

  def probabilities(self, prepared: Sequence[np.ndarray], batch_size: int = 64) -> np.ndarray:
    """Like `__call__`, for prepared pictures. The last batch is padded, so that one compiled program serves all."""
    out = [np.zeros((0, len(self.class_names)), np.float32)]
    for start in range(0, len(prepared), batch_size):
      images = np.stack(prepared[start:start + batch_size])
      padded = np.pad(images, ((0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)))
      out.append(np.asarray(self.forward(padded))[:len(images)])
    return np.concatenate(out)

  def forward(self, images_BHWC: np.ndarray) -> jax.Array:
    """Maps prepared pictures, uint8 [B, H, W, C], to probabilities, float32 [B, classes]."""
    raise NotImplementedError


def as_probabilities(logits_BC: jax.Array, several_labels: bool, temperature: float = 1.0) -> jax.Array:
  """The probabilities [B, C] of logits, of each class by itself where there can be several labels."""
  if temperature != 1:
    logits_BC = logits_BC / temperature
  return jax.nn.sigmoid(logits_BC) if several_labels else jax.nn.softmax(logits_BC, axis=-1)


def temperature(fields: dict[str, Any], where: str) -> float:
  """The temperature in a model.json. Raises UserError for what is none."""
  value = fields.get('temperature', 1.0)
  if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < float('inf'):
    raise UserError(f'{where}: temperature={value!r}: expected a positive number')
  return float(value)


def class_indices(known: Sequence[str], wanted: Sequence[str], subject: str) -> tuple[int, ...]:
  """The index in `known` (the classes of a model) of each name in `wanted` (the classes of a data set).

  Args:
    known: distinct names.
    wanted: names.
    subject: the subject of the error message, such as 'the model'.

  Raises:
    UserError: a name is not in `known`.
  """
  indices = {name: i for i, name in enumerate(known)}
  if unknown := [name for name in wanted if name not in indices]:
    same = len(known) == len(wanted)
    raise UserError(f'{subject} does not know the class {unknown[0]!r}'
                    f'{f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""} of this data. It knows '
                    f'{", ".join(map(repr, known[:3]))}, .. ({len(known):,} in all). To score it, name its classes as '
                    'the data does: --classes=FILE with a name in each line'
                    f'{", or --classes=order if they come in the same order" if same else ""}')
  return tuple(indices[name] for name in wanted)
