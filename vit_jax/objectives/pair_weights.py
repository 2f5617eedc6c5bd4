"""Both towers of given weights, from which a run of objective=contrast can start: of a run or another program."""

import dataclasses
import os

from vit_jax import models, records, schema
from vit_jax.data import text as text_lib
from vit_jax.interop import run_weights, sources
from vit_jax.interop.pairs import Pairs
from vit_jax.models import PureModel
from vit_jax.objectives import contrast
from vit_jax.transfer.pretrained import Whole


def read(place: str | os.PathLike) -> Whole | None:
  """Both towers; None if there is one alone, or none. Raises UserError for what cannot be read."""
  if not sources.is_run(place):
    return of_files(sources.read_pairs(place)) if sources.has_pairs(place) else None
  record = records.read_run(place)
  if record is None or record['config'].get('objective') != 'contrast':
    return None
  return _of_run(place, record)


def of_files(found: Pairs) -> Whole:
  """Those that `sources.read_pairs` has read."""
  options, text = schema.cast(contrast.Config, found.loss, 'loss'), found.text()
  whole = Whole(found.image, options, text)
  params = found.params(model_of(whole).param_shapes())
  return dataclasses.replace(whole, weights=dataclasses.replace(found.image, params=params))


def model_of(whole: Whole) -> PureModel:
  """The model of both towers."""
  weights = whole.weights
  return PureModel(weights.family, weights.config, weights.image_shape, 0,
                   objective=contrast.Contrast(whole.options, whole.text))


def _of_run(workdir, record):
  config = record['config']
  options = schema.cast(contrast.Config, config['loss'], 'config.loss')
  own = schema.cast(text_lib.TextConfig, config['data']['text'], 'config.data.text')
  text = dataclasses.replace(own, tokenizer=run_weights.tokenizer_file(workdir, own.tokenizer) or own.tokenizer)
  # A vocabulary that was learnt may have fewer tokens than it was asked for.
  rows = options.text.vocab_size or text_lib.vocab_size(own if own.tokenizer == 'bpe' else text)
  family = schema.cast(models.family(config['family']).config, config['model'], 'config.model')
  options = dataclasses.replace(options, text=dataclasses.replace(options.text, vocab_size=rows))
  model = PureModel(config['family'], family, tuple(record['data']['image_shape']), 0,
                    objective=contrast.Contrast(options, text))
  weights = run_weights.read(workdir, None, model)
  return Whole(weights, options, dataclasses.replace(text, digest=text_lib.tokenizer(text, list).digest))
