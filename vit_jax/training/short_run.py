"""A run that the command line makes shorter than its recipe's warm-up."""

import dataclasses
from collections.abc import Callable, Collection

from vit_jax.data import pipeline
from vit_jax.optimisation import schedule
from vit_jax.training.config import RunConfig

SHARE = 0.1  # of the run, where the recipe's warm-up does not fit in


def fitted(config: RunConfig, overridden: Collection[str], note: Callable[[str], None]) -> RunConfig:
  """The config with a warm-up that fits, where a length was given and the recipe's warm-up is too long for it.

  A warm-up that was given, or is the recipe's beside its own length, stays as it is and is refused later. The length
  in FLOPs is left alone too: it needs the model, which may come from weights.

  Args:
    config: with what was given in it.
    overridden: the keys that were given, such as 'train.steps'.
    note: called with a line of text where the warm-up is changed.
  """
  warmup, (kind, _) = config.schedule.warmup_steps, schedule.check_length(config.train)
  if not warmup or 'schedule.warmup_steps' in overridden or f'train.{kind}' not in overridden or kind == 'flops':
    return config
  examples = pipeline.open_data(config.data).unique_examples if kind == 'epochs' else 0
  steps = schedule.num_steps(config.train, config.data.batch_size, examples, 1)
  if warmup < steps:
    return config
  fits = int(SHARE * steps)
  note(f'note: the warm-up of {warmup:,} steps does not fit into {steps:,}: it takes {fits:,} '
       f'(--config.schedule.warmup_steps={fits})')
  return dataclasses.replace(config, schedule=dataclasses.replace(config.schedule, warmup_steps=fits))
