"""A run's weights with all that an objective with text has added, from which another such run can start."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any

from vit_jax import models, objectives, records, schema
from vit_jax.data import text as text_lib
from vit_jax.interop import run_weights
from vit_jax.models import PureModel
from vit_jax.transfer.pretrained import Whole


def read(workdir: str | os.PathLike, name: str, table: str, with_rows: Callable[[Any, int], Any]) -> Whole | None:
  """The weights, options and tokens of a run; None if it is a run of another objective.

  Args:
    workdir: the run's folder.
    name: of the objective.
    table: of `Whole`.
    with_rows: (options, rows of the table of tokens) -> the options, in which that number is set. A vocabulary that was
      learnt may have fewer tokens than it was asked for, and the table has as many rows as were asked for.

  Raises:
    UserError: it cannot be read.
  """
  record = records.read_run(workdir)
  if record is None or record['config'].get('objective') != name:
    return None
  kind, config = objectives.objective(name), record['config']
  options = schema.cast(kind.Config, config['loss'], 'config.loss')
  own = schema.cast(text_lib.TextConfig, config['data']['text'], 'config.data.text')
  text = dataclasses.replace(own, tokenizer=run_weights.tokenizer_file(workdir, own.tokenizer) or own.tokenizer)
  options = with_rows(options, kind(options, own if own.tokenizer == 'bpe' else text).vocab_size())
  family = schema.cast(models.family(config['family']).config, config['model'], 'config.model')
  model = PureModel(config['family'], family, tuple(record['data']['image_shape']), 0, objective=kind(options, text))
  weights = run_weights.read(workdir, None, model)
  text = dataclasses.replace(text, digest=text_lib.tokenizer(text, list).digest)
  return Whole(weights, options, text, table)
