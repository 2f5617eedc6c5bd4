"""The result of every reader and the input of every writer: a model's parameters, config and preprocessing."""

import dataclasses
from typing import Any

import jax

from vit_jax import models, schema
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.models import PureModel


@dataclasses.dataclass(frozen=True)
class Weights:
  """A model read from any source, in the names and layout of this project.

  Attributes:
    source: the source, for messages.
    family: a key of `models.FAMILIES`.
    model: fields of the family's Config; omitted fields have their defaults.
    params: nested dicts of NumPy arrays, with blocks stacked on a leading axis, as in `PureModel`. There is no 'head'
      if the source has no classifier (see `headless`).
    stats: the same for the statistics of batch norm; empty for families without.
    preprocessing: the preparation of pictures that the model expects.
    class_names: one name per class; None if the source has none.
    step: the number of finished steps, for a checkpoint of a run.
    several_labels: whether a picture can have several classes, or none: each has its own probability.
    temperature: what logits are divided by before they become probabilities (`objectives.calibration`).
  """
  source: str
  family: str
  model: dict[str, Any]
  params: dict
  stats: dict
  preprocessing: Preprocessing
  class_names: tuple[str, ...] | None = None
  step: int | None = None
  several_labels: bool = False
  temperature: float = 1.0

  @property
  def config(self) -> Any:
    """`model` as the family's frozen Config. Raises UserError if it is not valid."""
    return schema.cast(models.family(self.family).config, self.model, 'model')

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(height, width, channels) of the pictures that the parameters are for."""
    return (*self.preprocessing.size, self.preprocessing.channels)

  @property
  def headless(self) -> bool:
    """Whether the model is a backbone without a classifier."""
    return 'head' not in self.params

  @property
  def num_classes(self) -> int | None:
    """The number of classes of the head; None without a head."""
    return None if self.headless else self.params['head']['kernel'].shape[-1]

  @property
  def size(self) -> int:
    """The number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.params))

  def pure_model(self) -> PureModel:
    """The model of `params` and `stats`. Raises UserError if it has no head."""
    if self.headless:
      raise UserError(f'{self.source}: expected a classifier, got a backbone without a head; fine-tune it first, '
                      "or give classes to a SigLIP or CLIP as --names='a cat,a dog'")
    return PureModel(self.family, self.config, self.image_shape, self.num_classes)

  def names(self) -> tuple[str, ...]:
    """`class_names`, or the numbers of the classes if there are no names."""
    return self.class_names or tuple(map(str, range(self.num_classes or 0)))
