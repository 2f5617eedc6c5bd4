"""Bootstrap intervals: percentiles of coefficients, predictions and derived quantities over refits to resampled runs.

Clusters are resampled, not rows. The branches of a trunk share most of their training, and the checkpoints of a run
share nearly all of it, so a cluster is drawn or left out as a whole (Efron and Tibshirani 1993, chapter 8). Besiroglu
et al. 2024 (arXiv 2404.10102) resample the runs of a scaling law in the same way.
"""

import dataclasses

import numpy as np

from vit_jax.scaling.estimate import GRADIENT_LIMIT, Fit
from vit_jax.scaling.forms import Columns
from vit_jax.scaling.minimize import minimize

LEVEL = 0.95
FEWEST_CLUSTERS = 3  # with fewer there are no intervals
_CHUNK = 2_000_000  # array elements per block of refits, which bounds memory


@dataclasses.dataclass(frozen=True)
class Bootstrap:
  """R refits.

  Attributes:
    fit: the fit to all points.
    theta: [R, p], the fitted parameters.
    coefficients: [R, k], in the source's notation.
    noise: [n], the residuals of the fit, scaled up for the degrees of freedom that it uses.
    failed: the number of refits left out because they did not converge.
    clusters: the number of clusters resampled.
    seed: the seed of the resampling.
  """
  fit: Fit
  theta: np.ndarray
  coefficients: np.ndarray
  noise: np.ndarray
  failed: int
  clusters: int
  seed: int

  def interval(self) -> dict[str, list[float]]:
    """{coefficient: [low, high]}, the 95% intervals."""
    return {name: percentile(self.coefficients[:, i]) for i, name in enumerate(self.fit.form.names)}

  def predictions(self, columns: Columns) -> np.ndarray:
    """The predictions of each refit, [R, m]."""
    with np.errstate(all='ignore'):
      return self.fit.predict(columns, self.theta)

  def bands(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """The 95% confidence band of the law and the 95% prediction band of a new run (law and noise), each [2, m]."""
    values = self.predictions(columns)
    random = np.random.default_rng(self.seed + 1)
    noise = random.choice(self.noise, size=(20, *values.shape)) if len(self.noise) else np.zeros((1, 1, 1))
    new = values * np.exp(noise) if self.fit.objective.log else values + noise
    tails = _tails()
    return np.quantile(values, tails, axis=0), np.quantile(new.reshape(-1, values.shape[1]), tails, axis=0)


def run(fit: Fit, clusters: np.ndarray, replicates: int = 1000, seed: int = 0) -> Bootstrap | None:
  """Refits the law to `replicates` resamplings of its clusters.

  Each refit starts from the optimum of the fit, from the next best optima, and from the grid point that scores best on
  that resample. It keeps the lowest minimum.

  Args:
    fit: the fit to all n points.
    clusters: [n], the cluster of each point.
    replicates: the number of refits.
    seed: the seed of the resampling.

  Returns:
    None if there are fewer than FEWEST_CLUSTERS clusters, or if fewer than half of the refits converge.
  """
  index = np.unique(clusters, return_inverse=True)[1]
  count = int(index.max()) + 1
  if replicates < 1 or count < FEWEST_CLUSTERS:
    return None
  random = np.random.default_rng(seed)
  weights = random.multinomial(count, np.full(count, 1 / count), size=replicates)[:, index] * fit.weights
  size = max(1, _CHUNK // (len(fit.y) * len(fit.theta) * (len(fit.optima) + 1)))
  parts = [_refit(fit, weights[i:i + size]) for i in range(0, replicates, size)]
  theta, gradient = (np.concatenate([part[i] for part in parts]) for i in range(2))
  coefficients = fit.form.natural(theta)
  good = (gradient < GRADIENT_LIMIT) & np.isfinite(coefficients).all(1)
  if good.sum() < 0.5 * replicates:
    return None
  freedom = max(len(fit.y) - len(fit.theta), 1)
  noise = fit.residuals * np.sqrt(len(fit.y) / freedom)
  return Bootstrap(fit, theta[good], coefficients[good], noise, int((~good).sum()), count, seed)


def percentile(values: np.ndarray) -> list[float]:
  """The 95% percentile interval [low, high] of values [R]. NaNs are left out; inf counts as the largest value."""
  values = np.asarray(values, float)
  values = values[~np.isnan(values)]
  if not len(values):
    return [float('nan')] * 2
  with np.errstate(invalid='ignore'):  # NumPy interpolates between two infinities to NaN
    return [float(v) for v in np.nan_to_num(np.quantile(values, _tails()), nan=np.inf, posinf=np.inf)]


def _tails():
  return [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


def _refit(fit, weights):
  columns, form = fit.columns, fit.form
  starts = list(fit.optima) + [_best_starts(fit, weights)]
  starts = [np.broadcast_to(start, (len(weights), len(fit.theta))) for start in starts]
  minima = minimize(form, columns, fit.y, fit.objective, np.concatenate(starts), np.tile(weights, (len(starts), 1)))
  value = minima.value.reshape(len(starts), len(weights))
  best = np.argmin(value, axis=0) * len(weights) + np.arange(len(weights))
  return minima.theta[best], minima.gradient[best]


def _best_starts(fit, weights):
  losses = fit.start_losses  # [S, n]
  return fit.start_theta[np.argmin(weights @ losses.T, axis=1)]
