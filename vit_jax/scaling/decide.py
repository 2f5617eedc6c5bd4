"""Whether a comparison of two groups is decided: the runs that it still needs, and where their laws cross."""

import math

import numpy as np

from vit_jax.scaling import frontier
from vit_jax.scaling.bootstrap import Bootstrap
from vit_jax.scaling.estimate import Fit
from vit_jax.scaling.frontier import Cost

DECIDED = 0.05  # one-sided p
Z = 1.645  # of DECIDED
MOST = 100  # times as many runs; a comparison that needs more is of two equals
_LOSSES = 17


def runs_needed(multiplier: float, spread: float, n: dict[str, int]) -> dict[str, int] | None:
  """The runs that each group still needs for p < DECIDED, if the multiplier stays; {} if it is decided.

  The standard deviation of the logarithm of the multiplier falls with the square root of the number of runs.

  Args:
    multiplier: the multiplier.
    spread: the standard deviation of its logarithm, over the refits.
    n: {group: its independent runs}.

  Returns:
    None where the groups cannot be told apart with MOST times as many runs.
  """
  distance = abs(math.log(multiplier))
  if distance >= Z * spread:
    return {}
  times = (Z * spread / distance) ** 2 if distance > 0 else math.inf
  return {name: math.ceil(count * (times - 1)) for name, count in n.items()} if times <= MOST else None


def crossing(a: tuple[Fit, Bootstrap | None, Cost], b: tuple[Fit, Bootstrap | None, Cost], losses: tuple[float, float],
             span: tuple[float, float]) -> float | None:
  """The loss at which two laws need the same, the lowest between two losses; None if one needs less throughout.

  Args:
    a, b: the groups, as in `frontier.multiplier`.
    losses: the lowest and the highest loss that points of both groups have.
    span: see `frontier.needed`.
  """
  if not losses[0] < losses[1]:
    return None
  grid = np.geomspace(*losses, _LOSSES)
  with np.errstate(all='ignore'):
    ratio = np.array([np.log(np.divide(*(frontier.needed(fit.form, fit.theta[None], loss, cost, span)[0]
                                         for fit, _, cost in (b, a)))) for loss in grid])
  for i in range(len(grid) - 1):
    left, right = ratio[i], ratio[i + 1]
    if np.isfinite([left, right]).all() and left * right < 0:
      return float(np.exp(np.interp(0.0, *zip(*sorted(((left, np.log(grid[i])), (right, np.log(grid[i + 1]))))))))
  return None


def describe(row: dict, seeds: float | None) -> str:
  """What a comparison still needs, as the end of a sentence; '' if it is decided and the laws do not cross."""
  parts = []
  if row.get('runs_needed'):
    few = ' and '.join(f'{count} more of {name}' for name, count in row['runs_needed'].items())
    spread = f' (seeds differ by {100 * seeds:.2g}%)' if seeds else ''
    parts.append(f'not decided: about {few} would be{spread}')
  elif 'runs_needed' in row and row['runs_needed'] is None:
    parts.append(f'not decided: with {MOST} times as many runs it would not be either')
  if row.get('crosses_at'):
    parts.append(f'WARNING: the laws cross at {row["metric"]} {row["crosses_at"]:.4g}, inside the range of both, so '
                 'which one needs less depends on the loss')
  return '; '.join(parts)
