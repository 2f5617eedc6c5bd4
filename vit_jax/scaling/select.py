"""Which form, and from which size on: chosen by forecasts inside the training range, never by the hold-out.

The largest third of the training sizes is a validation slice. Up to four forecasts are made into it, each by a fit to
the sizes below a boundary, scored on the sizes from there on; the form and lower cut-off with the lowest mean RMSLE
wins. A form with fewer coefficients is preferred where its score is within CLOSE of the lowest.
"""

import dataclasses

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import estimate
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

SLICE = 0.3  # of the distinct sizes
FOLDS = 4
CUTOFFS = (0.0, 0.125, 0.25, 0.375, 0.5)  # shares of the distinct sizes that are left out at the small end
CLOSE = 0.1
ONE_INPUT = ('power', 'power_offset', 'shifted_power', 'm4', 'zhai')


@dataclasses.dataclass(frozen=True)
class Candidate:
  """score: mean RMSLE of the forecasts; cutoff: the smallest size that is fitted (in the points' size column)."""
  form: str
  cutoff: float
  kept: int
  score: float


@dataclasses.dataclass(frozen=True)
class Selection:
  best: Candidate
  candidates: tuple[Candidate, ...]  # lowest score first
  size: str  # the column that cut-offs refer to
  slice_from: float  # the smallest size of the validation slice
  folds: int

  def words(self) -> str:
    best = self.best
    cut = f'from {self.size} >= {best.cutoff:.3g} on' if best.kept < 1 else 'no cut-off'
    return (f'form {best.form}, {cut}: chosen among {len(self.candidates)} combinations by {self.folds} forecasts of '
            f'the points with {self.size} >= {self.slice_from:.3g} inside the training range (RMSLE {best.score:.3g})')


def candidate_forms(points: Points) -> tuple[str, ...]:
  """The forms that the points' columns allow: of x where an x was chosen, else of N and D (and unique examples)."""
  columns = points.columns
  if 'x' in columns:
    return ONE_INPUT
  varied = all(name in columns and len(np.unique(columns[name])) > 1 for name in ('params', 'examples'))
  if not varied:
    raise UserError('--form=auto: params and examples do not both vary in the points; choose an input with --x')
  repeated = 'unique_examples' in columns and np.any(columns['examples'] > 1.001 * columns['unique_examples'])
  several = 'unique_examples' in columns and len(np.unique(columns['unique_examples'])) > 1
  return ('chinchilla_tied', 'chinchilla') + (('data_constrained',) if repeated and several else ())


def choose(points: Points, forms: tuple[str, ...], objective: Objective, weights: np.ndarray | None = None,
           cutoffs: tuple[float, ...] = CUTOFFS) -> Selection:
  """The best of `forms` and `cutoffs` on the validation slice of the (training) points.

  Raises:
    UserError: too few distinct sizes, or no form that can be fitted to what lies below the slice.
  """
  size_name, size = points.size
  sizes = np.unique(size)
  if len(sizes) < 5:
    raise UserError(f'--form=auto needs at least 5 distinct values of {size_name} to choose on; there are {len(sizes)}')
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
    raise UserError(f'--form=auto: too few points below the validation slice ({size_name} < {sizes[-held]:.3g}) for '
                    f'any of {", ".join(forms)}; choose a form')
  found.sort(key=lambda c: c.score)
  near = [c for c in found if c.score <= (1 + CLOSE) * found[0].score]
  best = min(near, key=lambda c: (len(estimate.FORMS[c.form].parameters), c.score))
  return Selection(best, tuple(found), size_name, float(sizes[-held]), len(boundaries))


def _forecast(points, size, form, objective, weights, lowest, boundary):
  """RMSLE on sizes >= boundary of a fit to [lowest, boundary); None where it has too few points or no minimum."""
  inside, beyond = (size >= lowest) & (size < boundary), size >= boundary
  if inside.sum() < len(estimate.FORMS[form].parameters) + 1:
    return None
  columns = points.columns
  try:
    fit = estimate.fit(form, {k: v[inside] for k, v in columns.items()}, points.y[inside], objective,
                       None if weights is None else weights[inside], exact=False)
  except UserError:  # an input that does not vary below the boundary, or no minimum
    return None
  predicted = fit.predict({k: v[beyond] for k, v in columns.items()})
  return float(np.sqrt(np.mean(np.log(predicted / points.y[beyond]) ** 2)))
