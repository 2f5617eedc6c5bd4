"""Branching cooldowns: runs that differ only in length share their stable phase, the trunk, which is trained once.

A branch *is* the run of its length: it has the same config and config_hash, and ends bit for bit the same on the same
devices. If it or its trunk is packed with other runs (`packed`), it ends the same up to rounding. The trunk is a cache.
Its identity does not include the length, and it keeps a checkpoint where each branch starts (Zhai et al. 2022, sec. 3;
Haegele et al. 2024, sec. 3).
"""

import dataclasses
import math

from vit_jax.errors import UserError
from vit_jax.optimisation.schedule import LengthConfig, ScheduleConfig
from vit_jax.training.config import RunConfig, run_hash

_SHARED = ('wsd', 'rsqrt')  # schedules that do not depend on the length before the cooldown
# Prefixes of the keys in which runs of one trunk may differ.
NOT_SHARED = ('system.', 'evaluate.', 'schedule.cooldown_fraction',
              *(f'train.{field.name}' for field in dataclasses.fields(LengthConfig)))


def branch_step(config: ScheduleConfig, steps: int) -> int:
  """The number of finished steps at which a run of `steps` steps leaves the trunk and its cooldown begins.

  Raises:
    UserError: the schedule depends on the length of the run from its first step.
  """
  if config.name not in _SHARED:
    raise UserError(f'schedule.name={config.name!r}: only wsd and rsqrt runs share a trunk; the other schedules '
                    'depend on the length of the run from the first step')
  return steps - math.ceil(config.cooldown_fraction * steps)


def trunk_config(config: RunConfig, steps: int) -> RunConfig:
  """The config of a run's trunk: that of the run, without a cooldown and with a length of `steps`.

  Raises:
    UserError: the schedule has no part that can be shared, or the run may stop early.
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


def shares_trunk(config: RunConfig) -> bool:
  """Whether a run has a trunk that runs of other lengths share, whether or not it is trained from one."""
  return config.schedule.name in _SHARED and not config.evaluate.patience
