"""Both towers of given weights, from which a run of objective=contrast can start: of a run or another program."""

import dataclasses
import os

from vit_jax import schema
from vit_jax.interop import sources
from vit_jax.interop.pairs import Pairs
from vit_jax.models import PureModel
from vit_jax.objectives import contrast, whole_runs
from vit_jax.transfer.pretrained import Whole

_TABLE = 'text/tokens'


def read(place: str | os.PathLike) -> Whole | None:
  """Both towers; None if there is one alone, or none. Raises UserError for what cannot be read."""
  if not sources.is_run(place):
    return of_files(sources.read_pairs(place)) if sources.has_pairs(place) else None
  return whole_runs.read(place, 'contrast', _TABLE, lambda options, rows: dataclasses.replace(
      options, text=dataclasses.replace(options.text, vocab_size=rows)))


def of_files(found: Pairs) -> Whole:
  """Those that `sources.read_pairs` has read."""
  options, text = schema.cast(contrast.Config, found.loss, 'loss'), found.text()
  whole = Whole(found.image, options, text, _TABLE)
  params = found.params(model_of(whole).param_shapes())
  return dataclasses.replace(whole, weights=dataclasses.replace(found.image, params=params))


def model_of(whole: Whole) -> PureModel:
  """The model of both towers."""
  weights = whole.weights
  return PureModel(weights.family, weights.config, weights.image_shape, 0,
                   objective=contrast.Contrast(whole.options, whole.text))
