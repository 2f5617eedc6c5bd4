"""The objectives: what a model can be trained for. What an objective provides is in `objectives.objective`."""

from typing import Any

from vit_jax.errors import UserError, nearest
from vit_jax.objectives import classify
from vit_jax.objectives.objective import Objective

DEFAULT = 'classify'
OBJECTIVES: dict[str, type[Objective]] = {
    'classify': classify.OBJECTIVE,
}


def objective(name: str) -> type[Objective]:
  """The objective of that name; UserError with the nearest where there is none."""
  if name not in OBJECTIVES:
    raise UserError(f'objective={name!r}: no such objective{nearest(name, OBJECTIVES)}')
  return OBJECTIVES[name]


def of(config: Any) -> Objective:
  """The objective of a RunConfig, with its options."""
  return objective(config.objective).of(config)
