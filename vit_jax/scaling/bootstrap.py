"""Bootstrap intervals: percentiles of coefficients, predictions and derived quantities over refits to resampled runs.

Clusters are resampled, not rows. The branches of a trunk share most of their training, and the checkpoints of a run
share nearly all of it, so a cluster is drawn or left out as a whole (Efron and Tibshirani 1993, chapter 8). Besiroglu
et al. 2024 (arXiv 2404.10102) resample the runs of a scaling law in the same way.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from vit_jax.scaling.estimate import GRADIENT_LIMIT, Fit
from vit_jax.scaling.forms import Columns, Form
from vit_jax.scaling.minimize import minimize

LEVEL = 0.95
FEWEST_CLUSTERS = 3  # with fewer there are no intervals
WIDENED = 2.0  # times the largest fitted size
STARTS = 2  # of the starts of a refit, those with the lowest objective are refined
SETTLED_AFTER = 30  # iterations without progress that end a refit
_CHUNK = 2_000_000  # array elements per block of refits, which bounds memory


@dataclasses.dataclass(frozen=True)
class Refits:
  """The refits of one form to resamplings of one set of points: parameters theta [R, p]."""
  form: Form
  theta: np.ndarray


@dataclasses.dataclass(frozen=True)
class Bootstrap:
  """R refits, of one form and one set of points; where these were selected, of those that each resample selects.

  Attributes:
    fit: the fit to all points.
    parts: the refits of each selection.
    noise: [m], the residuals of the fit but for outliers, scaled up for the degrees of freedom that it uses.
    failed: the number of refits left out because they did not converge.
    clusters: the number of clusters resampled.
    seed: the seed of the resampling.
    paired: whether refit r of this law and of others that are paired are of one resample.
    widening: how many times as wide as the refits say intervals beyond the fitted sizes are, at least 1: by the errors
      of the law's own forecasts (`rollout.widening`).
    of_optimum: the same for N* and D*, by its forecasts of these (`frontier.widening_of_optimum`).
    broken: a broken power law, which nests the form, where the points support it; None without one.
  """
  fit: Fit
  parts: tuple[Refits, ...]
  noise: np.ndarray
  failed: int
  clusters: int
  seed: int
  paired: bool = False
  widening: float = 1.0
  of_optimum: float = 1.0
  broken: 'Broken | None' = None

  def __len__(self) -> int:
    return sum(len(part.theta) for part in self.parts)

  @property
  def coefficients(self) -> np.ndarray:
    """The coefficients [r, k], in the source's notation, of the refits that have the form of the fit."""
    return np.concatenate([part.form.natural(part.theta) for part in self.parts
                           if part.form.name == self.fit.form.name])

  @property
  def share(self) -> float:
    """The share of the refits that have the form of the fit."""
    return sum(len(part.theta) for part in self.parts if part.form.name == self.fit.form.name) / len(self)

  def interval(self) -> dict[str, list[float]]:
    """{coefficient: [low, high]}, the 95% intervals."""
    return {name: percentile(values) for name, values in zip(self.fit.form.names, self.coefficients.T)}

  def ends_at_bound(self) -> dict[str, str]:
    """{coefficient: upper or lower} where an interval ends at a bound of the form and not of the data.

    A limit of 0 for an irreducible part or a shift is a result of the data.
    """
    same, out = [part for part in self.parts if part.form.name == self.fit.form.name], {}
    for i, (label, from_zero) in enumerate(zip(self.fit.form.labels, self.fit.form.from_zero)):
      low = np.mean(np.concatenate([part.theta[:, i] <= part.form.lower[i] for part in same]))
      high = np.mean(np.concatenate([part.theta[:, i] >= part.form.upper[i] for part in same]))
      if high >= _tails()[0]:
        out[label] = 'upper'
      elif low >= _tails()[0] and not from_zero:
        out[label] = 'lower'
    return out

  def each(self, of: Callable[[Form, np.ndarray], np.ndarray], axis: int = 0) -> np.ndarray:
    """`of(form, theta)` of all refits, joined along their axis."""
    with np.errstate(all='ignore'):
      return np.concatenate([of(part.form, part.theta) for part in self.parts], axis)

  def predictions(self, columns: Columns) -> np.ndarray:
    """The predictions of each refit, [R, m]; beyond the fitted sizes they are widened."""
    values, middle = self.each(lambda form, theta: form.model(theta, columns)[0]), self.fit.predict(columns)
    values = self.widened(values, middle, self.fit.factor(columns))
    return values if self.broken is None else self.broken.reached(columns, values, middle, self.fit.factor(columns))

  def widened(self, values: np.ndarray, middle: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Values [R, m] of the refits, moved away from those of the fit, [m], by the widening.

    Args:
      values: those of each refit.
      middle: the values of the fit.
      factor: [m], the sizes that these belong to over the largest fitted one; from WIDENED on, all of the widening
        counts, and none up to 1.
    """
    if self.widening == 1:
      return values
    stretch = self.widening ** np.clip(np.log(factor) / np.log(WIDENED), 0, 1)
    with np.errstate(all='ignore'):
      ratio = values / middle
      return np.where(ratio > 0, middle * ratio ** stretch, values)  # a sign that differs is far enough

  def with_noise(self, values: np.ndarray) -> np.ndarray:
    """Values of new runs [20 R, m] for the values of the law [R, m]."""
    random = np.random.default_rng(self.seed + 1)
    noise = random.choice(self.noise, size=(20, *values.shape)) if len(self.noise) else np.zeros((1, 1, 1))
    new = values * np.exp(noise) if self.fit.objective.log else values + noise
    return new.reshape(-1, *values.shape[1:])

  def bands(self, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """The 95% confidence band of the law and the 95% prediction band of a new run (law and noise), each [2, m]."""
    values = self.predictions(columns)
    return np.quantile(values, _tails(), axis=0), np.quantile(self.with_noise(values), _tails(), axis=0)


@dataclasses.dataclass(frozen=True)
class Broken:
  """A broken power law beside a form that it nests.

  Attributes:
    refits: its own.
    support: how much the points support it, up to 1 (`select.broken`).
  """
  refits: Bootstrap
  support: float

  @property
  def words(self) -> str:
    """What it does to intervals."""
    way, fits = ('', 'better') if self.support == 1 else (f'{self.support:.0%} of the way ', 'nearly as well')
    return (f'on one side, intervals beyond the fitted sizes reach {way}to where a power law with a break leads, which '
            f'fits {fits}')

  def reached(self, columns: Columns, values: np.ndarray, middle: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Values [R, m] of the form's refits, moved so that their interval reaches where this law leads.

    Where most of its refits are below the fit, the interval reaches down to the end of theirs, and where most are
    above, up to it. So it is longer on one side only. With less support it goes a part of the way, in logarithms of its
    length.

    Args:
      columns: the inputs.
      values: as widened.
      middle: the values of the fit.
      factor: [m], as for `Bootstrap.widened`.
    """
    broken = self.refits.predictions(columns)
    side = np.where(np.median(broken, axis=0) < middle, -1, 1)  # the side of the fit that is longer
    ends = [np.where(side < 0, *np.quantile(some, _tails(), axis=0)) for some in (broken, values)]
    with np.errstate(all='ignore'):
      longer = np.log(ends[0] / middle) / np.log(ends[1] / middle)
      longer = np.where(longer > 1, longer, 1.0) ** (self.support * np.clip(np.log(factor) / np.log(WIDENED), 0, 1))
      moved = middle * (values / middle) ** longer
    return np.where((side * (values - middle) > 0) & np.isfinite(moved), moved, values)


def run(fit: Fit, clusters: np.ndarray, replicates: int = 1000, seed: int = 0,
        strata: np.ndarray | None = None) -> Bootstrap | None:
  """Refits the law to `replicates` resamplings of its clusters.

  Each refit starts from the optimum of the fit, from the next best optima, and from the grid point that scores best on
  that resample; the STARTS best of these are refined. It keeps the lowest minimum.

  Args:
    fit: the fit to all n points.
    clusters: [n], the cluster of each point.
    replicates: the number of refits.
    seed: the seed of the resampling.
    strata: [n]; the clusters of each value are resampled among themselves.

  Returns:
    None if there are fewer than FEWEST_CLUSTERS clusters, or if fewer than half of the refits converge.
  """
  whole = np.ones(len(fit.y), bool)
  return run_selected(fit, lambda _: (fit, whole), lambda counts: np.zeros(len(counts), int), clusters, replicates,
                      seed, strata)


def run_selected(fit: Fit, candidate: Callable[[int], tuple[Fit, np.ndarray]],
                 choose: Callable[[np.ndarray], np.ndarray], clusters: np.ndarray, replicates: int,
                 seed: int, strata: np.ndarray | None = None) -> Bootstrap | None:
  """As `run`, with the selection of form and points repeated in every resample.

  Args:
    fit: the fit of the candidate that was selected on all points.
    candidate: maps the index of a candidate to its fit, and to the points that it is of, bool [n].
    choose: maps the counts of the points in each resample [R, n] to the candidate that the resample selects [R].
    clusters: [n], the cluster of each point.
    replicates: the number of refits.
    seed: the seed of the resampling.
    strata: [n]; the clusters of each value are resampled among themselves.
  """
  index = np.unique(clusters, return_inverse=True)[1]
  count = int(index.max()) + 1
  strata = np.zeros(len(index)) if strata is None else strata
  within = [np.unique(index[strata == value]) for value in np.unique(strata)]
  if replicates < 1 or min(map(len, within)) < FEWEST_CLUSTERS:
    return None
  random, drawn = np.random.default_rng(seed), np.zeros((replicates, count), int)
  for some in within:
    drawn[:, some] = random.multinomial(len(some), np.full(len(some), 1 / len(some)), size=replicates)
  counts = drawn[:, index]
  choice, parts, failed = choose(counts), [], 0
  for k in np.unique(choice):
    of, inside = candidate(k)
    theta, good = _refits(of, counts[choice == k][:, inside] * of.weights)
    parts.append(Refits(of.form, theta[good]))
    failed += int((~good).sum())
  if failed > 0.5 * replicates or not any(len(p.theta) and p.form.name == fit.form.name for p in parts):
    return None
  return Bootstrap(fit, tuple(parts), noise(fit), failed, count, seed)


def noise(fit: Fit) -> np.ndarray:
  """The residuals of a fit but for outliers, scaled up for the degrees of freedom that it uses."""
  residuals = fit.residuals[~fit.outliers]
  return residuals * np.sqrt(len(residuals) / max(len(residuals) - len(fit.theta), 1))


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


def _refits(fit, weights):
  """The parameters [R, p] of refits with point weights [R, n], and which of them converged."""
  size = max(1, _CHUNK // (len(fit.y) * len(fit.theta) * (len(fit.optima) + 1)))
  parts = [_refit(fit, weights[i:i + size]) for i in range(0, len(weights), size)]
  theta, done = (np.concatenate([part[i] for part in parts]) for i in range(2))
  return theta, done & np.isfinite(fit.form.natural(theta)).all(1)


def _refit(fit, weights):
  columns, form, size = fit.columns, fit.form, len(weights)
  starts = np.stack([*(np.broadcast_to(optimum, (size, len(fit.theta))) for optimum in fit.optima),
                     _best_starts(fit, weights)])  # [S, R, p]
  with np.errstate(all='ignore'):
    residuals = fit.objective.residuals(form.model(starts.reshape(-1, starts.shape[-1]), columns)[0], fit.y)
    scores = np.einsum('srn,rn->sr', fit.objective.rho(residuals).reshape(len(starts), size, -1), weights)
  order = np.argsort(np.where(np.isfinite(scores), scores, np.inf), axis=0)[:STARTS]
  picked = np.take_along_axis(starts, order[:, :, None], 0).reshape(-1, starts.shape[-1])
  minima = minimize(form, columns, fit.y, fit.objective, picked, np.tile(weights, (len(order), 1)),
                    patience=SETTLED_AFTER)
  best = np.argmin(minima.value.reshape(len(order), size), axis=0) * size + np.arange(size)
  return minima.theta[best], (minima.gradient[best] < GRADIENT_LIMIT) | minima.settled[best]


def _best_starts(fit, weights):
  losses = fit.start_losses  # [S, n]
  return fit.start_theta[np.argmin(weights @ losses.T, axis=1)]
