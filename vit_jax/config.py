"""What recipes import: `config.defaults(family)` is the config that a recipe starts from."""

from typing import Any

from vit_jax.recipe import load_recipe
from vit_jax.training.config import defaults

__all__ = ['defaults', 'load_recipe', 'runlocal']


def runlocal(c: Any) -> None:
  """Changes a recipe to a few steps on fake pictures, which run anywhere and need no data set."""
  c.data.source, c.data.batch_size, c.data.val_examples = 'random:160', 8, 16
  c.model.dtype = 'float32'
  c.schedule.warmup_steps = 1
  c.train.epochs, c.train.steps = 0, 4
  c.system.workers = 0
