"""Branching cooldowns: runs that differ in length alone share their stable phase, which is trained once (the trunk).

A branch *is* the run of its length: same config, same config_hash, same end bit for bit on the same devices. The
trunk is a cache: its identity leaves the length out, and it keeps a checkpoint where each branch begins (Zhai et al.
2022, sec. 3; Haegele et al. 2024, sec. 3).
"""

import dataclasses
import math

from vit_jax.errors import UserError
from vit_jax.optimisation.schedule import LengthConfig, ScheduleConfig
from vit_jax.training.config import RunConfig, run_hash

# What runs of one trunk may differ in: how their keys begin.
NOT_SHARED = ('system.', 'evaluate.', 'schedule.cooldown_fraction',
              *(f'train.{field.name}' for field in dataclasses.fields(LengthConfig)))


def branch_step(config: ScheduleConfig, steps: int) -> int:
  """The finished steps after which a run of `steps` steps leaves the trunk: where its cooldown begins.

  Raises:
    UserError: a schedule that depends on the run's length from its first step.
  """
  if config.name not in ('wsd', 'rsqrt'):
    raise UserError(f'schedule.name={config.name!r}: only wsd and rsqrt runs share a trunk; the others depend on the '
                    'run\'s length from the first step')
  return steps - math.ceil(config.cooldown_fraction * steps)


def trunk_config(config: RunConfig, steps: int) -> RunConfig:
  """The trunk of a run as a run of its own: the same without a cooldown, `steps` long.

  Raises:
    UserError: a schedule without a shared part, or early stopping, which looks at the whole run.
  """
  branch_step(config.schedule, 1)
  if config.evaluate.patience:
    raise UserError(f'evaluate.patience={config.evaluate.patience}: a run that may stop early has no trunk')
  length = dataclasses.asdict(LengthConfig(steps=steps))
  return dataclasses.replace(config, train=dataclasses.replace(config.train, **length),
                             schedule=dataclasses.replace(config.schedule, cooldown_fraction=0.0))


def trunk_hash(config: RunConfig) -> str:
  """The identity of a run's trunk: its config without length, cooldown and evaluation."""
  trunk = trunk_config(config, 1)
  no_length = dataclasses.replace(trunk.train, steps=None)
  return run_hash(dataclasses.replace(trunk, train=no_length), without=('system', 'evaluate'))
