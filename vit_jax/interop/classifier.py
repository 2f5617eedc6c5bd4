"""Pictures in, probabilities out: what every model in use has in common."""

import dataclasses
import os
from collections.abc import Sequence

import jax
import numpy as np

from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
  """A function from pictures to probabilities; what computes them is a subclass's `forward`.

  Attributes:
    class_names: one per class.
    preprocessing: how pictures are prepared.
  """
  class_names: tuple[str, ...]
  preprocessing: Preprocessing

  def __call__(self, images: Sequence[str | os.PathLike | bytes | np.ndarray], batch_size: int = 64) -> np.ndarray:
    """Probabilities float32 [n, classes] of paths, encoded pictures or arrays uint8 [H, W, C].

    Raises:
      pictures.BadPicture: one that cannot be read.
    """
    return self.probabilities([self.prepare(image) for image in images], batch_size)

  def prepare(self, image: str | os.PathLike | bytes | np.ndarray) -> np.ndarray:
    """A picture as the model sees it: uint8 [H, W, C]. Raises BadPicture."""
    return self.preprocessing.prepare(image)

  def probabilities(self, prepared: Sequence[np.ndarray], batch_size: int = 64) -> np.ndarray:
    """As `__call__`, of pictures that `prepare` gave; the last batch is padded, so that one program serves all."""
    out = [np.zeros((0, len(self.class_names)), np.float32)]
    for start in range(0, len(prepared), batch_size):
      images = np.stack(prepared[start:start + batch_size])
      padded = np.pad(images, ((0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)))
      out.append(np.asarray(self.forward(padded))[:len(images)])
    return np.concatenate(out)

  def forward(self, images_BHWC: np.ndarray) -> jax.Array:
    """Prepared pictures, uint8 -> probabilities [B, C], float32."""
    raise NotImplementedError


def class_indices(known: Sequence[str], wanted: Sequence[str], who: str) -> tuple[int, ...]:
  """Of each class of `wanted` (a data set's), which of the `known` ones (a model's) it is, by name.

  Raises:
    UserError: one that is not known; `who` begins the message.
  """
  places = {name: i for i, name in enumerate(known)}
  if unknown := [name for name in wanted if name not in places]:
    raise UserError(f'{who} does not know the class {unknown[0]!r}'
                    f'{f" and {len(unknown) - 1} others" if len(unknown) > 1 else ""} of this data')
  return tuple(places[name] for name in wanted)
