"""The objectives: what a model can be trained for. What an objective provides is in `objectives.objective`."""

from typing import Any

from vit_jax import plugins
from vit_jax.objectives import caption, classify, contrast, reconstruct
from vit_jax.objectives.objective import Objective

DEFAULT = 'classify'
OBJECTIVES: dict[str, type[Objective]] = {
    'classify': classify.OBJECTIVE,
    'reconstruct': reconstruct.OBJECTIVE,
    'contrast': contrast.OBJECTIVE,
    'caption': caption.OBJECTIVE,
}


def objective(name: str) -> type[Objective]:
  """The objective of that name, or package.module:NAME; raises UserError as `plugins.find` does."""
  fits = lambda found: isinstance(found, type) and issubclass(found, Objective)
  return plugins.find('objective', name, OBJECTIVES, fits, 'a subclass of vit_jax.objectives.objective.Objective')


def of(config: Any) -> Objective:
  """The objective of a RunConfig, with its options."""
  return objective(config.objective).of(config)
