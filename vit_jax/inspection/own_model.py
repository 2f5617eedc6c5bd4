"""A run's model with all that its objective added to it, such as a decoder or a text tower."""

import dataclasses
import os
from typing import Any, NamedTuple

from vit_jax import objectives, records
from vit_jax.data import text as text_lib
from vit_jax.data.text import Tokenizer
from vit_jax.errors import UserError
from vit_jax.interop import run_weights
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel
from vit_jax.training import config as run_config


class OwnModel(NamedTuple):
  """A run as it is recorded, its model, and its weights."""
  record: dict[str, Any]
  config: run_config.RunConfig
  model: PureModel
  weights: Weights


def load(workdir: str | os.PathLike, step: int | None, objective: str) -> OwnModel:
  """The model of a run of this objective; `step` is that of a checkpoint, or None for the one that was scored on test.

  Raises:
    UserError: it is no such run, or has no such checkpoint.
  """
  record = records.read_run(workdir)
  if record is None:
    raise UserError(f'{os.fspath(workdir)}: expected a run folder, found no {records.RUN} in it')
  config = run_config.cast(record['config'])
  if config.objective != objective:
    raise UserError(f'{os.fspath(workdir)} was trained with objective={config.objective}; expected a run of '
                    f'objective={objective}')
  data = record['data']
  model = PureModel(config.family, config.model, tuple(data['image_shape']), len(data['classes']),
                    objective=objectives.of(config))
  return OwnModel(record, config, model, run_weights.read(workdir, step, model))


def tokenizer(workdir: str | os.PathLike, config: run_config.RunConfig) -> Tokenizer:
  """The tokenizer of a run. Raises UserError if it is not there."""
  reading = config.data.text
  file = run_weights.tokenizer_file(workdir, reading.tokenizer)
  return text_lib.tokenizer(dataclasses.replace(reading, tokenizer=file or reading.tokenizer), list)
