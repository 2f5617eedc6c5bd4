"""How the error of a forecast grows with its distance: refits to ever larger runs, each tried on all larger ones."""

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import estimate
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

FITS = 6
SAME_SIZE = 0.01  # relative: sizes within it differ by rounding (runs of one budget)
PER_DECADE = 2  # places of a median


def rollout(points: Points, form: str, objective: Objective) -> list[dict]:
  """Forecasts of every point by fits to smaller ones: {run, fitted_to, factor, error, persistence}.

  factor is the point's size over the largest fitted one, error and persistence are ln(predicted / measured) of the law
  and of the largest fitted run's value. Points of all sizes take part, held out or not: this is a picture, not a test.
  """
  _, size = points.size
  sizes, out = _levels(size), []
  counts = [np.sum(size <= s) for s in sizes]
  enough = [s for s, n in zip(sizes[1:-1], counts[1:]) if n > len(estimate.FORMS[form].parameters) + 1]
  picked = [enough[i] for i in np.unique(np.linspace(0, len(enough) - 1, FITS).astype(int))] if enough else []
  for boundary in picked:
    inside = size <= boundary
    try:
      small = points.take(inside)
      fit = estimate.fit(form, small.columns, small.y, objective, exact=False)
    except UserError:  # an input that does not vary among the smaller runs
      continue
    predicted = fit.predict({k: v[~inside] for k, v in points.columns.items()})
    last = persistence(size[inside], points.y[inside])
    for i, value in zip(np.flatnonzero(~inside), predicted):
      out.append({'run': points.runs[i], 'fitted_to': float(boundary), 'factor': float(size[i] / boundary),
                  'error': float(np.log(value / points.y[i])), 'persistence': float(np.log(last / points.y[i]))})
  return out


def medians(rows: list[dict]) -> list[dict]:
  """The median absolute error and persistence of a rollout's forecasts over ever greater distances."""
  place = np.array([round(PER_DECADE * np.log10(row['factor'])) for row in rows])
  out = []
  for value in np.unique(place):
    here = [row for row, p in zip(rows, place) if p == value]
    median = lambda key, here=here: float(np.median([abs(row[key]) for row in here]))
    factor = float(np.exp(np.median([np.log(row['factor']) for row in here])))
    out.append({'factor': factor, 'error': median('error'), 'persistence': median('persistence')})
  return out


def _levels(size):
  """The upper ends of groups of sizes that differ by rounding alone, ascending."""
  out, start = [], 0.0
  for value in np.unique(size):
    if value > start * (1 + SAME_SIZE):
      out.append(value)
      start = value
    out[-1] = value
  return np.array(out)


def persistence(size: np.ndarray, y: np.ndarray) -> float:
  """The value of the largest run (the mean of several): the forecast that nothing changes."""
  return float(np.mean(y[size >= size.max() * (1 - 1e-9)]))
