"""The choice of the form and of the smallest size to fit, by forecasts within the training points.

Held-out points are never used. The bootstrap repeats the choice in every resample (`Selection.resampled`), because an
interval of the chosen form alone is too narrow.

The largest 30% of the training sizes are the validation slice. It is forecast up to four times: each forecast fits the
sizes below a boundary in the slice and is scored on the sizes above it. The form and lower cut-off with the lowest mean
RMSLE are chosen, but a form with fewer coefficients is preferred if its score is within CLOSE of the lowest.
"""

import dataclasses

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import bootstrap, estimate
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

SLICE = 0.3  # the fraction of the distinct sizes in the validation slice
FOLDS = 4  # the maximum number of forecasts
CUTOFFS = (0.0, 0.125, 0.25, 0.375, 0.5)  # fractions of the distinct sizes left out at the small end
CLOSE = 0.1  # relative to the lowest score
ONE_INPUT = ('power', 'power_offset', 'shifted_power', 'm4', 'zhai')
BROKEN_SIZES = 8  # the distinct sizes that the five coefficients of a broken power law need
BROKEN_REFITS = 300  # at most
SUPPORTED = 2.0  # the criterion by which a law may be behind and have substantial support (Burnham, Anderson 2002, 2.6)


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
  """The result of `choose`.

  Attributes:
    best: the chosen candidate.
    candidates: all K candidates, lowest score first.
    size: the column that cut-offs refer to.
    slice_from: the smallest size in the validation slice.
    folds: the number F of forecasts.
    errors: [K, F, n], the log errors of each candidate's forecasts; NaN for points that a forecast is not of.
  """
  best: Candidate
  candidates: tuple[Candidate, ...]
  size: str
  slice_from: float
  folds: int
  errors: np.ndarray

  def resampled(self, counts: np.ndarray) -> np.ndarray:
    """The index of the candidate that each resample selects, [R], for the counts of the points in it [R, n].

    The forecasts are kept, and scored on the points of the resample. Repeating the fits of all forecasts in every
    resample would take many times as long.
    """
    square, there = np.nan_to_num(self.errors) ** 2, np.isfinite(self.errors)
    total, weight = (np.tensordot(counts, part, (1, 2)) for part in (square, there))  # [R, K, F]
    scored = (weight > 0).sum(2)
    scores = np.sqrt(total / np.maximum(weight, 1)).sum(2) / np.maximum(scored, 1)
    return _pick(np.where(scored, scores, np.inf).T, self.candidates)

  def describe(self) -> str:
    """The choice and its reason in one sentence."""
    best = self.best
    cut = f'points with {self.size} >= {best.cutoff:.3g}' if best.kept < 1 else 'no cut-off'
    return (f'form {best.form}, {cut}: the best of {len(self.candidates)} combinations in {self.folds} forecasts of '
            f'the training points with {self.size} >= {self.slice_from:.3g} (RMSLE {best.score:.3g})')


def candidate_forms(points: Points) -> tuple[str, ...]:
  """The forms that the columns of the points allow: forms of x if x was chosen, else of N and D (and unique examples).

  chinchilla_tied is not among them: alpha = beta fixes the exponent of N* at 0.5, with an interval of no width.

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
  return ('chinchilla',) + (('data_constrained',) if repeated and several else ())


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
  found, errors = [], []
  for cutoff in cutoffs:
    lowest = sizes[int(cutoff * len(sizes))]
    for form in forms:
      tried = [_forecast(points, size, form, objective, weights, lowest, sizes[b]) for b in boundaries]
      if all(error is not None for error in tried):
        score = np.mean([np.sqrt(np.nanmean(error ** 2)) for error in tried])
        found.append(Candidate(form, float(lowest), float(np.mean(size >= lowest)), float(score)))
        errors.append(tried)
  if not found:
    raise UserError(f'--form=auto: too few points below the validation slice ({size_name} < {sizes[-held]:.3g}) to fit '
                    f'any of {", ".join(forms)}; choose a form with --form')
  order = sorted(range(len(found)), key=lambda k: found[k].score)
  ordered = tuple(found[k] for k in order)
  best = ordered[_pick(np.array([[c.score] for c in ordered]), ordered)[0]]
  return Selection(best, ordered, size_name, float(sizes[-held]), len(boundaries), np.array([errors[k] for k in order]))


def broken(points: Points, fit: estimate.Fit, weights: np.ndarray, replicates: int,
           seed: int) -> bootstrap.Broken | None:
  """The refits of a broken power law to the training points, where these support it beside the form.

  It nests three of the forms of one input, and is close to the others where their curve has one bend. Akaike's
  criterion is compared: twice the gain in log-likelihood, less twice the number of coefficients more. From 0 on it
  counts in full, and down to -SUPPORTED in proportion. The noise is Laplace's for log-Huber, else normal; outliers are
  left out. None for other forms, too few sizes, or less support.
  """
  if fit.form.name not in ONE_INPUT or len(np.unique(points.columns['x'])) < BROKEN_SIZES:
    return None
  general = estimate.fit('broken_power', points.columns, points.y, fit.objective, weights, exact=False)
  support = _support(fit, general, points, weights)
  refits = bootstrap.run(general, points.clusters, min(replicates, BROKEN_REFITS), seed) if support else None
  return refits and bootstrap.Broken(refits, support)


def _support(fit, general, points, weights):
  """How much the points support the general law, from 0 to 1, in steps of 0.01."""
  kept, log_huber = ~general.outliers, fit.objective.name == 'log_huber'
  losses = [np.sum(weights * kept * fit.objective.rho(fit.objective.residuals(law.predict(points.columns), points.y)))
            for law in (fit, general)]
  gain = (2 if log_huber else 1) * np.sum(kept) * np.log(losses[0] / max(losses[1], 1e-300))
  ahead = gain - 2 * (len(general.theta) - len(fit.theta))
  return round(float(np.clip(1 + ahead / SUPPORTED, 0, 1)), 2)


def _pick(scores, candidates):
  """The index of the candidate to choose, [R], for scores [K, R]: of those close to the lowest, the simplest form."""
  parameters = np.array([len(estimate.FORMS[c.form].parameters) for c in candidates])[:, None]
  near = scores <= (1 + CLOSE) * scores.min(0)
  fewest = np.where(near, parameters, parameters.max() + 1).min(0)
  return np.argmin(np.where(near & (parameters == fewest), scores, np.inf), axis=0)


def _forecast(points, size, form, objective, weights, lowest, boundary):
  """The log errors [n] on sizes >= boundary of a fit to [lowest, boundary), NaN elsewhere; None if there is no fit."""
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
  out = np.full(len(points), np.nan)
  out[beyond] = np.log(predicted / points.y[beyond])
  return out
