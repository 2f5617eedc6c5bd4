"""The config of a run: every room's dataclass in one. The defaults are theirs; recipes change values only."""

import contextlib
import dataclasses
import functools
import pathlib
from typing import Any

import ml_collections

from vit_jax import models, objectives, options, schema, tracking
from vit_jax.data import config as data_config
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.layers.stack import Execution
from vit_jax.optimisation import optimizer, schedule
from vit_jax.optimisation.optimizer import OptimizerConfig
from vit_jax.optimisation.parametrisation import ParametrisationConfig
from vit_jax.optimisation.schedule import LengthConfig, ScheduleConfig
from vit_jax.options import option
from vit_jax.parallel.mesh import MeshConfig
from vit_jax.survival import local_tier
from vit_jax.survival.health import HealthConfig
from vit_jax.survival.local_tier import LocalConfig
from vit_jax.training import evaluate
from vit_jax.training.evaluate import EvaluateConfig
from vit_jax.transfer import pretrained
from vit_jax.transfer.distillation import DistillConfig
from vit_jax.transfer.pretrained import PretrainedConfig


@dataclasses.dataclass(frozen=True)
class TrainConfig(LengthConfig, HealthConfig):
  """A run's length, and what to do at a loss or a gradient that is not finite."""


@dataclasses.dataclass(frozen=True)
class SystemConfig(LocalConfig):
  """How a run is executed. Nothing here changes what it computes, and none of it is part of its identity.

  The exception is `microbatches` with batch norm, whose statistics are those of a micro-batch (see `run_hash`).
  """
  mesh: MeshConfig = MeshConfig()
  execution: Execution = Execution()
  # Gradients are accumulated over this many slices of the batch; 0: as `training.microbatches` chooses.
  microbatches: int = 0
  # On GPUs: the same bits each time, also after a resume. Slower. TPUs and CPUs do that anyway (`host`).
  deterministic: bool = False
  # Each step whose number is a multiple of it is run twice and compared (`training.replay`); 0: none is.
  replay_every: int = option(0, hint='0: off; 100 costs one step in a hundred')
  # At most so many steps in one call, over pictures that lie on the devices (`training.dispatch`); 0: chosen.
  steps_per_call: int = option(0, most=1_024, was='steps_a_call')
  workers: int = option(0, most=1_024)  # processes that decode pictures; 0: threads only
  # Steps between training rows in metrics.jsonl; None: 50 rows a run.
  log_every: int | None = option(None, hint='None or 0: 50 rows a run; as many as the run has steps: one, at its end')
  # Steps between checkpoints; None: at every evaluation.
  save_every: int | None = option(None, hint='None or 0: at every evaluation')
  # A checkpoint at the latest so long after the last; 0 or None: by steps alone.
  save_minutes: float | None = option(15.0, hint='None or 0: by steps alone')
  keep_last: int = option(2, least=1)  # checkpoints, beside the best one
  # Checkpoints of the multiples of this many steps are saved, and kept for good.
  keep_every: int | None = option(None, hint='None or 0: none')
  # A service that gets the rows of metrics.jsonl too (`tracking`); '': the curves in RUN/tensorboard alone.
  track: tracking.Name = ''


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """One training run. `model` is the family's own config, and `loss` the objective's (see `run_config_class`)."""
  family: str = dataclasses.field(default='vit', metadata={'identity': True})
  objective: str = objectives.DEFAULT  # what the model is trained for: a key of `objectives.OBJECTIVES`
  tag: str = ''  # any text: with another one it is another run, say of code that has changed
  seed: int = option(0, most=2**32 - 1)  # of initial parameters, data order, augmentation and dropout
  model: Any = None
  data: DataConfig = DataConfig()
  loss: Any = objectives.objective(objectives.DEFAULT).Config()
  pretrained: PretrainedConfig = PretrainedConfig()
  distill: DistillConfig = DistillConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  parametrisation: ParametrisationConfig = ParametrisationConfig()
  schedule: ScheduleConfig = ScheduleConfig()
  train: TrainConfig = TrainConfig()
  evaluate: EvaluateConfig = EvaluateConfig()
  system: SystemConfig = SystemConfig()


@functools.cache
def run_config_class(family: str, objective: str = objectives.DEFAULT) -> type[RunConfig]:
  """RunConfig with the family's config as the type and default of `model`, and the objective's as those of `loss`."""
  model, loss = models.family(family).config, objectives.objective(objective).Config
  identity = dataclasses.field(default=family, metadata={'identity': True})
  own = [('family', str, identity), ('model', model, model()), ('loss', loss, loss())]
  return dataclasses.make_dataclass('RunConfig', own, bases=(RunConfig,), frozen=True)


def defaults(family: str = 'vit', objective: str = objectives.DEFAULT) -> ml_collections.ConfigDict:
  """The full config of a run, at the defaults of one model family and one objective: what every recipe starts from."""
  config = schema.to_config_dict(run_config_class(family, objective))
  config.objective = objective
  schema.follow(config, 'objective', _set_loss)
  return config


def _set_loss(config):
  """Gives a recipe whose objective was changed the options of that one, at their defaults."""
  with contextlib.suppress(UserError):  # of an objective that does not exist, which `cast` reports
    config.loss = schema.to_config_dict(objectives.objective(config.objective).Config)


def run_hash(config: RunConfig, without: tuple[str, ...] = ('system',)) -> str:
  """A run's identity (`config.config_hash`); with batch norm the number of micro-batches belongs to it.

  Where the digest of a teacher or of the weights that it starts from is known, it does not matter in which folder they
  are. A probe and the training of the same model share a folder.
  """
  given = dataclasses.replace(config.pretrained, probe='never')
  if given.digest is not None:
    given = dataclasses.replace(given, path=None)
  config = dataclasses.replace(config, pretrained=given)
  if (text := config.data.text).digest is not None:  # what it is, and not where
    text = dataclasses.replace(text, tokenizer=pathlib.PurePath(text.tokenizer).suffix)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, text=text))
  if config.distill.digest is not None:
    config = dataclasses.replace(config, distill=dataclasses.replace(config.distill, teacher=None))
  micro = config.system.microbatches
  batch_norm = micro > 1 and models.family(config.family).batch_norm
  return schema.config_hash(config, without, {'microbatches': micro} if batch_norm else {})


def program(config: RunConfig) -> RunConfig:
  """The config without what a step reads from its state: runs that are equal in this are one compiled program."""
  plain = OptimizerConfig()
  rates = dataclasses.replace(config.optimizer, learning_rate=plain.learning_rate, weight_decay=plain.weight_decay)
  return dataclasses.replace(config, seed=0, optimizer=rates)


def check(config: RunConfig) -> None:
  """Raises UserError for values that are wrong whatever the data, the weights and the devices.

  It is the one check of `main`, `sweep` and `plan`: each field by its `option`, then what each room says of its own.
  What depends on data or a mesh is checked as they are opened (`training.run`, `rehearsal.job`).
  """
  options.check(config)
  models.family(config.family)
  data_config.check(config.data)
  optimizer.check(config.optimizer)
  schedule.check_length(config.train)
  pretrained.check(config.pretrained)
  objective = objectives.of(config)
  objective.check(config)
  _check_metric(config, objective)
  local_tier.check(config.system)
  if config.data.val_examples == 0:
    evaluate.check_patience(config.evaluate, 0)


def _check_metric(config, objective):
  metric = config.evaluate.metric
  if metric in evaluate.PROBE and not config.evaluate.probe:
    raise UserError(f'evaluate.metric={metric!r}: there is no probe; set evaluate.probe to a number of examples')
  evaluate.check_metric(metric, {**objective.metrics, **objective.evaluated, **evaluate.PROBE}, config.objective)


def cast(config) -> RunConfig:
  """A recipe's ConfigDict as a RunConfig; UserError for what does not fit."""
  names = {'family': config.get('family', 'vit'), 'objective': config.get('objective', objectives.DEFAULT)}
  for key, name in names.items():
    if not isinstance(name, str):
      raise UserError(f'config.{key}: expected str, got {name!r}')
  return schema.cast(run_config_class(**names), config)
