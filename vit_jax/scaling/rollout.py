"""Forecast error as a function of distance: fits to the runs below increasing sizes, each tested on all larger runs."""

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import estimate
from vit_jax.scaling.forms import Form
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

FITS = 6
SAME_SIZE = 0.01  # the relative difference within which sizes differ only by rounding (runs of one budget)
PER_DECADE = 2  # medians per factor of 10
NORMAL_MEDIAN = 0.6745  # of the absolute value of a standard normal deviate


def rollout(points: Points, form: str | type[Form], objective: Objective, sigma: float = 0.0) -> list[dict]:
  """Forecasts of points by fits to smaller points, as rows {run, fitted_to, factor, error, persistence,
  expected}.

  `factor` is the size of the point / the largest fitted size. `error` is ln(predicted / measured) of the law, and
  `persistence` that of the largest fitted run's value. `expected` is the standard deviation of the error by the fit's
  own account: its noise, and the noise of its coefficients (delta method). Held-out points are used as well, so this is
  an illustration and not a test.

  Args:
    points: the points.
    form: the form.
    objective: the loss of the fits.
    sigma: the least noise that is expected: that of all points, because small fits underestimate it.
  """
  _, size = points.size
  out, cls = [], estimate.form_class(form)
  inputs = np.stack([points.columns[name] for name in cls.inputs], 1)
  enough = [at for at in _levels(size)[1:-1] if len(np.unique(inputs[size <= at], axis=0)) > len(cls.parameters)]
  picked = [enough[i] for i in np.unique(np.linspace(0, len(enough) - 1, FITS).astype(int))] if enough else []
  for boundary in picked:
    inside = size <= boundary
    try:
      small = points.take(inside)
      fit = estimate.fit(form, small.columns, small.y, objective, exact=False)
    except UserError:  # an input that does not vary among the smaller runs
      continue
    beyond = {k: v[~inside] for k, v in points.columns.items()}
    errors = np.log(fit.predict(beyond) / points.y[~inside])
    expected = _expected(fit, beyond, sigma, errors < 0)
    last = persistence(size[inside], points.y[inside])
    for i, error, spread in zip(np.flatnonzero(~inside), errors, expected):
      out.append({'run': points.runs[i], 'fitted_to': float(boundary), 'factor': float(size[i] / boundary),
                  'error': float(error), 'persistence': float(np.log(last / points.y[i])), 'expected': float(spread)})
  return out


def _expected(fit, columns, least, low):
  """The standard deviation of ln(predicted / measured) at `columns`, [m].

  A parameter at a bound does not move, but an irreducible part of 0 that small runs do not show can appear in large
  ones: where the predictions are too low, bool [m], it is free.
  """
  def slopes(at):
    value, jacobian = (a[0] for a in fit.form.model(fit.theta[None], at))
    return jacobian / value, value
  inside, beyond = slopes(fit.columns)[0], slopes(columns)
  free = (fit.theta > fit.form.lower) & (fit.theta < fit.form.upper)
  spread = np.where(low, _spread(inside, beyond[0], free | fit.form.from_zero), _spread(inside, beyond[0], free))
  sigma = max(fit.sigma, least) / (1 if fit.objective.log else beyond[1])
  return sigma * np.sqrt(1 + (np.pi / 2 if fit.objective.name == 'log_huber' else 1) * spread)


def _spread(inside, beyond, free):
  """The variance of predictions beyond the points by the delta method, in units of the noise, [m]."""
  covariance = np.linalg.pinv(inside[free] @ inside[free].T, rcond=1e-12)
  return np.einsum('im,ij,jm->m', beyond[free], covariance, beyond[free])


def misses(rows: list[dict]) -> float | None:
  """The median over the fits of their forecasts' errors in units of what they expect; None with fewer than three fits.

  The forecasts of one fit have its error in common, so the median of each fit counts.
  """
  fits = {row['fitted_to'] for row in rows}
  if len(fits) < 3:
    return None
  each = [np.median([abs(row['error']) / max(row['expected'], 1e-12) for row in rows if row['fitted_to'] == at])
          for at in fits]
  return float(np.median(each))


def widening(rows: list[dict]) -> float:
  """How much wider intervals beyond the fitted sizes have to be by these forecasts, at least 1.

  This is the scale factor of the Particle Data Group (Review of Particle Physics, section 5.2.2) with a median in place
  of the root mean square: a normal error has a median of NORMAL_MEDIAN standard deviations.
  """
  return max(1.0, (misses(rows) or 0.0) / NORMAL_MEDIAN)


def medians(rows: list[dict]) -> list[dict]:
  """The median absolute errors of the forecasts at each distance, as rows {factor, error, persistence}."""
  place = np.array([round(PER_DECADE * np.log10(row['factor'])) for row in rows])
  out = []
  for value in np.unique(place):
    here = [row for row, p in zip(rows, place) if p == value]
    median = lambda key, here=here: float(np.median([abs(row[key]) for row in here]))
    factor = float(np.exp(np.median([np.log(row['factor']) for row in here])))
    out.append({'factor': factor, 'error': median('error'), 'persistence': median('persistence')})
  return out


def _levels(size):
  """The largest size in each group of sizes that differ only by rounding, ascending."""
  out, start = [], 0.0
  for value in np.unique(size):
    if value > start * (1 + SAME_SIZE):
      out.append(value)
      start = value
    out[-1] = value
  return np.array(out)


def persistence(size: np.ndarray, y: np.ndarray) -> float:
  """The forecast that nothing changes: the value of the largest run, or the mean of several."""
  return float(np.mean(y[size >= size.max() * (1 - 1e-9)]))
