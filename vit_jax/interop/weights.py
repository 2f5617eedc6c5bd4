"""What every reader gives and every writer takes: a model's parameters by our names, and how to use them."""

import dataclasses
from typing import Any

import jax

from vit_jax import models, schema
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.models import PureModel


@dataclasses.dataclass(frozen=True)
class Weights:
  """A model out of a file or folder, in this project's names and layout, whatever it was written by.

  Attributes:
    source: where it was read, for messages.
    family: a key of `models.FAMILIES`.
    model: fields of the family's Config; those that are left out are at their defaults.
    params: nested plain dicts of numpy arrays, blocks stacked on a leading axis, as PureModel has them. A file without
      a classifier gives no 'head' (see `headless`).
    stats: likewise, batch norm's; empty for families without.
    preprocessing: how the model wants its pictures.
    class_names: one a class; None where the source does not tell.
    step: of a run, the finished steps of the checkpoint.
  """
  source: str
  family: str
  model: dict[str, Any]
  params: dict
  stats: dict
  preprocessing: Preprocessing
  class_names: tuple[str, ...] | None = None
  step: int | None = None

  @property
  def config(self) -> Any:
    """`model` as the family's frozen Config. Raises UserError where it does not fit."""
    return schema.cast(models.family(self.family).config, self.model, 'model')

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """(height, width, channels) that the parameters are for."""
    return (*self.preprocessing.size, self.preprocessing.channels)

  @property
  def headless(self) -> bool:
    """Whether these are of a backbone without a classifier."""
    return 'head' not in self.params

  @property
  def num_classes(self) -> int | None:
    """How many classes the head tells apart; None without one."""
    return None if self.headless else self.params['head']['kernel'].shape[-1]

  @property
  def size(self) -> int:
    """How many parameters there are."""
    return sum(leaf.size for leaf in jax.tree.leaves(self.params))

  def pure_model(self) -> PureModel:
    """The model that `params` and `stats` fill. Raises UserError for what has no head."""
    if self.headless:
      raise UserError(f'{self.source}: a backbone without a classifier; give it a head by fine-tuning')
    return PureModel(self.family, self.config, self.image_shape, self.num_classes)

  def names(self) -> tuple[str, ...]:
    """`class_names`, or the classes' numbers where nobody gave them names."""
    return self.class_names or tuple(map(str, range(self.num_classes or 0)))
