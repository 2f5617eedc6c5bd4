"""Tests of a fit by its residuals: outliers, curvature that the form misses, and what else the residuals depend on.

All are F tests of terms added to the law, linearised at its optimum; outliers are left out.
"""

import dataclasses
import itertools
from collections.abc import Hashable, Sequence

import numpy as np
from scipy import stats

OUTLYING = 5.0  # robust standard deviations; more for few degrees of freedom
MOST_OUTLIERS = 0.2  # with a larger share of outliers, they are the noise
SIGNIFICANT = 1e-3  # p below which a test counts
CURVED = 1e-2  # that of the test of curvature, which warns and changes nothing


@dataclasses.dataclass(frozen=True)
class Test:
  """An F test of added terms.

  Attributes:
    f: the statistic.
    p: its p-value.
    effects: {term: the range of its effect over the points, in units of the residuals}, largest first.
    level: p below which it counts.
  """
  f: float
  p: float
  effects: dict[str, float]
  level: float = SIGNIFICANT

  @property
  def significant(self) -> bool:
    return self.p < self.level


def outliers(residuals: np.ndarray, parameters: int) -> np.ndarray:
  """The outliers among weighted residuals [n], bool [n].

  They are compared with 1.48 times the median absolute residual, leaving out as many of the smallest as there are
  parameters, because a robust fit goes through that many points exactly.
  """
  size, freedom = np.abs(residuals), len(residuals) - parameters
  if freedom < 3:
    return np.zeros(len(size), bool)
  scale = 1.4826 * np.median(np.sort(size)[parameters:])
  limit = max(OUTLYING, stats.t.isf(0.005 / len(size), freedom))
  out = size > limit * scale + 1e-9
  return out if out.mean() <= MOST_OUTLIERS else np.zeros(len(size), bool)


def curvature(fit, clusters: np.ndarray) -> Test | None:
  """Whether squares and products of the logarithms of the inputs explain residuals; None with too few points."""
  names, terms = _bends(fit)
  test = added(fit, np.zeros((len(fit.y), 0)), terms, names, clusters)
  return test and dataclasses.replace(test, level=CURVED)


def shared(fit, labels: Sequence[Hashable]) -> Test | None:
  """Whether residuals are alike within the points of one label, beyond the law and its curvature."""
  index = np.unique([str(label) for label in labels], return_inverse=True)[1]
  if index.max() + 1 < 3 or np.bincount(index).max() < 2:
    return None
  columns = np.eye(index.max() + 1)[index]
  return added(fit, _bends(fit)[1], columns, [f'label {i}' for i in range(columns.shape[1])], np.arange(len(fit.y)))


def depends(fit, values: Sequence[Hashable]) -> Test | None:
  """Whether the residuals differ between the values of a column."""
  found, index = np.unique([str(value) for value in values], return_inverse=True)
  return added(fit, np.zeros((len(fit.y), 0)), np.eye(len(found))[index], list(found), np.arange(len(fit.y)))


def _bends(fit):
  """Names and values [n, q] of the terms of second order; of third order too for one input."""
  logs = {name: np.log(fit.columns[name]) - np.log(fit.columns[name]).mean() for name in fit.form.sizes
          if len(np.unique(fit.columns[name])) > 2 and name != 'unique_examples'}
  terms = {f'ln^2 {name}': u ** 2 for name, u in logs.items()}
  if len(logs) == 1:
    terms |= {f'ln^3 {name}': u ** 3 for name, u in logs.items()}
  terms |= {f'ln {a} ln {b}': logs[a] * logs[b] for a, b in itertools.combinations(logs, 2)}
  return list(terms), np.stack(list(terms.values()), 1) if terms else np.zeros((len(fit.y), 0))


def added(fit, given: np.ndarray, terms: np.ndarray, names: list[str], clusters: np.ndarray) -> Test | None:
  """The F test of added terms [n, q] beside the law and `given` terms [n, g]; None with too few points.

  With clusters of several points, it is a robust Wald test.
  """
  keep = ~fit.outliers
  weight = np.sqrt(fit.weights / fit.weights.mean())[keep]
  base = np.concatenate([slopes(fit), given], 1)[keep] * weight[:, None]
  extra, residual = terms[keep] * weight[:, None], fit.residuals[keep] * weight
  basis = _range(base)
  left = lambda a: a - basis @ (basis.T @ a)
  rest, new = left(residual), _range(left(extra), np.linalg.norm(extra))
  freedom = len(rest) - basis.shape[1] - new.shape[1]
  if not new.shape[1] or freedom < 3:
    return None
  along = new.T @ rest
  after = rest - new @ along
  index = np.unique(np.asarray(clusters)[keep], return_inverse=True)[1]
  groups = index.max() + 1
  if groups == len(rest):
    f = np.sum(along ** 2) / new.shape[1] / max(np.sum(after ** 2) / freedom, 1e-24)
  else:  # the scores of a cluster count as one
    freedom = groups - new.shape[1] - 1
    if freedom < 3:
      return None
    scores = np.stack([np.bincount(index, column * after, groups) for column in new.T], 1)
    covariance = scores.T @ scores * groups / freedom
    f = along @ np.linalg.pinv(covariance) @ along / new.shape[1]
  size = np.linalg.lstsq(left(extra), rest, rcond=1e-8)[0] * np.ptp(extra / weight[:, None], axis=0)
  order = np.argsort(-np.abs(size))
  return Test(float(f), float(stats.f.sf(f, new.shape[1], freedom)), {names[i]: float(size[i]) for i in order})


def slopes(fit) -> np.ndarray:
  """The derivatives [n, p] of the law in units of its residuals."""
  value, jacobian = (a[0] for a in fit.form.model(fit.theta[None], fit.columns))
  return (jacobian / value if fit.objective.log else jacobian).T


def _range(matrix, scale=None):
  """An orthonormal basis [n, r] of the columns of a matrix, without directions that are small beside `scale`."""
  if not matrix.shape[1]:
    return matrix
  vectors, values, _ = np.linalg.svd(matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-300) if scale is None
                                     else matrix / max(scale, 1e-300), full_matrices=False)
  return vectors[:, values > 1e-6]
