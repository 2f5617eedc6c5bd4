"""The choice of the form and of the smallest size to fit, by forecasts within the training points.

Held-out points are never used.

The largest 30% of the training sizes are the validation slice. It is forecast up to four times: each forecast fits the
sizes below a boundary in the slice and is scored on the sizes above it. The form and lower cut-off with the lowest mean
RMSLE are chosen, but a form with fewer coefficients is preferred if its score is within CLOSE of the lowest.
"""

import dataclasses

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import estimate
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

SLICE = 0.3  # the fraction of the distinct sizes in the validation slice
FOLDS = 4  # the maximum number of forecasts
CUTOFFS = (0.0, 0.125, 0.25, 0.375, 0.5)  # fractions of the distinct sizes left out at the small end
CLOSE = 0.1  # relative to the lowest score
ONE_INPUT = ('power', 'power_offset', 'shifted_power', 'm4', 'zhai')


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A combination of a form and a cut-off.

  Attributes:
    form: the name of the form.
    cutoff: the smallest size that is fitted, in units of the points' size column.
    kept: the fraction of the points at or above the cut-off.
    score: the mean RMSLE of the forecasts.
  """
  form: str
  cutoff: float
  kept: int
  score: float


@dataclasses.dataclass(frozen=True)
class Selection:
  """The result of `choose`."""
  best: Candidate
  candidates: tuple[Candidate, ...]  # lowest score first
  size: str  # the column that cut-offs refer to
  slice_from: float  # the smallest size in the validation slice
  folds: int  # the number of forecasts

  def describe(self) -> str:
    """The choice and its reason in one sentence."""
    best = self.best
    cut = f'points with {self.size} >= {best.cutoff:.3g}' if best.kept < 1 else 'no cut-off'
    return (f'form {best.form}, {cut}: the best of {len(self.candidates)} combinations in {self.folds} forecasts of '
            f'the training points with {self.size} >= {self.slice_from:.3g} (RMSLE {best.score:.3g})')


def candidate_forms(points: Points) -> tuple[str, ...]:
  """The forms that the columns of the points allow: forms of x if x was chosen, else of N and D (and unique examples).

  Raises:
    UserError: x was not chosen, and params and examples do not both vary.
  """
  columns = points.columns
  if 'x' in columns:
    return ONE_INPUT
  varied = all(name in columns and len(np.unique(columns[name])) > 1 for name in ('params', 'examples'))
  if not varied:
    raise UserError('--form=auto: expected points in which both params and examples vary; otherwise choose an input '
                    'with --x')
  repeated = 'unique_examples' in columns and np.any(columns['examples'] > 1.001 * columns['unique_examples'])
  several = 'unique_examples' in columns and len(np.unique(columns['unique_examples'])) > 1
  return ('chinchilla_tied', 'chinchilla') + (('data_constrained',) if repeated and several else ())


def choose(points: Points, forms: tuple[str, ...], objective: Objective, weights: np.ndarray | None = None,
           cutoffs: tuple[float, ...] = CUTOFFS) -> Selection:
  """Chooses the best combination of `forms` and `cutoffs` on the validation slice of the training points.

  Raises:
    UserError: too few distinct sizes, or no form can be fitted to the points below the slice.
  """
  size_name, size = points.size
  sizes = np.unique(size)
  if len(sizes) < 5:
    raise UserError(f'--form=auto: expected at least 5 distinct values of {size_name}, got {len(sizes)}')
  held = max(2, round(SLICE * len(sizes)))
  boundaries = np.unique(np.linspace(len(sizes) - held, len(sizes) - 1, min(FOLDS, held)).astype(int))
  found = []
  for cutoff in cutoffs:
    lowest = sizes[int(cutoff * len(sizes))]
    for form in forms:
      scores = [_forecast(points, size, form, objective, weights, lowest, sizes[b]) for b in boundaries]
      if None not in scores:
        found.append(Candidate(form, float(lowest), float(np.mean(size >= lowest)), float(np.mean(scores))))
  if not found:
    raise UserError(f'--form=auto: too few points below the validation slice ({size_name} < {sizes[-held]:.3g}) to fit '
                    f'any of {", ".join(forms)}; choose a form with --form')
  found.sort(key=lambda c: c.score)
  near = [c for c in found if c.score <= (1 + CLOSE) * found[0].score]
  best = min(near, key=lambda c: (len(estimate.FORMS[c.form].parameters), c.score))
  return Selection(best, tuple(found), size_name, float(sizes[-held]), len(boundaries))


def _forecast(points, size, form, objective, weights, lowest, boundary):
  """RMSLE on sizes >= boundary of a fit to [lowest, boundary); None with too few points or without convergence."""
  inside, beyond = (size >= lowest) & (size < boundary), size >= boundary
  if inside.sum() < len(estimate.FORMS[form].parameters) + 1:
    return None
  columns = points.columns
  try:
    fit = estimate.fit(form, {k: v[inside] for k, v in columns.items()}, points.y[inside], objective,
                       None if weights is None else weights[inside], exact=False)
  except UserError:  # an input that does not vary below the boundary, or no convergence
    return None
  predicted = fit.predict({k: v[beyond] for k, v in columns.items()})
  return float(np.sqrt(np.mean(np.log(predicted / points.y[beyond]) ** 2)))
