"""IsoFLOP valleys: the loss as a function of model size at a fixed budget, and the size with the lowest loss.

The optimum is that of a parabola in log N (Hoffmann et al. 2022, section 3.2). On a wide grid it is biased even without
noise, so only the sizes around the lowest loss are used, and `calibrated` measures the bias and the noise of the whole
procedure on draws from a fitted surface. A note marks an optimum that moves when the outermost sizes are dropped.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy import stats

from vit_jax.scaling.bootstrap import percentile
from vit_jax.scaling.frontier import PowerLaw, power_law

SAME_BUDGET = 0.03  # the relative difference in FLOPs within which runs share a budget
FEWEST_SIZES = 4
AROUND = 3  # the number of sizes on each side of the lowest loss that the parabola is fitted to
_DRAWS = 2000
_SIMULATED = 300  # draws from the fitted surface


@dataclasses.dataclass(frozen=True)
class Valley:
  """The valley of one budget.

  Attributes:
    flops: the budget.
    params: [n], the model sizes in ascending order.
    examples: [n], the numbers of examples.
    loss: [n].
    used: bool [n], the points that the parabola is fitted to.
    curve: the coefficients of the parabola in ln N - centre, highest power first.
    centre: see `curve`.
    optimum: N*, the size with the lowest loss.
    examples_optimum: D*, the number of examples there.
    optimum_loss: the loss there.
    inside: whether N* is between the smallest and the largest size.
    interval: the 95% interval of N*; None with too few sizes.
    note: a problem with the valley, or ''.
  """
  flops: float
  params: np.ndarray
  examples: np.ndarray
  loss: np.ndarray
  used: np.ndarray
  curve: np.ndarray
  centre: float
  optimum: float
  examples_optimum: float
  optimum_loss: float
  inside: bool
  interval: list[float] | None
  note: str


def budgets(flops: np.ndarray) -> np.ndarray:
  """The index of each point's budget, int [n]; neighbors within SAME_BUDGET in FLOPs share a budget."""
  order = np.argsort(flops)
  steps = np.diff(np.log(flops[order])) > np.log(1 + SAME_BUDGET)
  out = np.empty(len(flops), int)
  out[order] = np.concatenate([[0], np.cumsum(steps)])
  return out


def valleys(params: np.ndarray, examples: np.ndarray, flops: np.ndarray, loss: np.ndarray,
            seed: int = 0) -> list[Valley]:
  """The valley of each budget with at least FEWEST_SIZES model sizes, cheapest first."""
  label, out = budgets(flops), []
  for budget in range(label.max() + 1):
    here = label == budget
    if len(np.unique(params[here])) >= FEWEST_SIZES:
      out.append(_valley(params[here], examples[here], float(np.exp(np.mean(np.log(flops[here])))), loss[here], seed))
  return out


def optimal_pairs(found: list[Valley]) -> PowerLaw | None:
  """Fits N* = factor C^exponent to the optima inside their grids; None with fewer than two.

  All optima have the same weight: an interval of four spare points says too little about a valley to weight it by.
  """
  good = [v for v in found if v.inside]
  if len(good) < 2:
    return None
  return power_law(np.array([v.flops for v in good]), np.array([v.optimum for v in good]))


def exponent(found: list[Valley], errors: np.ndarray | None = None) -> dict | None:
  """The exponent of N*(C): {value, stderr, ci95, bias}; None with fewer than two optima inside their grids.

  Args:
    found: the valleys.
    errors: [S, V], the simulated errors of ln N* (see `simulate`). Without them, ci95 is Student's t interval, and
      bias is None.
  """
  law, good = optimal_pairs(found), np.array([v.inside for v in found], bool)
  if law is None:
    return None
  out = {'value': law.exponent, 'stderr': law.stderr, 'bias': None, 'ci95': None}
  if errors is not None:
    u = np.log([v.flops for v in found])[good]
    u -= u.mean()
    off = errors[:, good] @ u / np.sum(u * u)
    return out | {'bias': float(np.median(off)), 'ci95': _around(law.exponent, off)}
  if good.sum() > 2:
    half = stats.t.isf(0.025, good.sum() - 2) * law.stderr
    out['ci95'] = [law.exponent - half, law.exponent + half]
  return out


def simulate(found: list[Valley], surface: Callable[[np.ndarray, np.ndarray], np.ndarray], sigma: float, freedom: int,
             log: bool, seed: int = 0) -> np.ndarray:
  """The errors [S, V] of ln N* of each valley's parabola over draws of its points from a surface with noise.

  The error is the parabola's optimum less the surface's at the same budget, so it has the parabola's bias on this grid
  and the choice of the sizes around the lowest loss.

  Args:
    found: the V valleys.
    surface: maps N and D [n] to losses [n].
    sigma: the standard deviation of the noise of (log) losses.
    freedom: the degrees of freedom that sigma is estimated with.
    log: whether the noise is of log losses.
    seed: the seed of the draws.
  """
  random = np.random.default_rng(seed)
  scale = sigma * np.sqrt(freedom / random.chisquare(freedom, _SIMULATED))
  out = np.empty((_SIMULATED, len(found)))
  for j, valley in enumerate(found):
    u = np.log(valley.params)
    slope, level = np.polyfit(u, np.log(valley.examples), 1)
    fine = np.linspace(u[0] - 2, u[-1] + 2, 4001)
    truth = fine[np.argmin(surface(np.exp(fine), np.exp(level + slope * fine)))]
    value = surface(valley.params, valley.examples)
    for i, noise in enumerate(scale[:, None] * random.standard_normal((_SIMULATED, len(u)))):
      loss = value * np.exp(noise) if log else value + noise
      _, centre, curve = _parabola(valley.params, loss)
      bottom = _bottom(curve) + centre if curve[0] > 0 else u[np.argmin(loss)]
      out[i, j] = np.clip(bottom, u[0] - 2, u[-1] + 2) - truth
  return out


def calibrated(found: list[Valley], errors: np.ndarray) -> list[Valley]:
  """The valleys with 95% intervals of N* from the simulated errors [S, V] of ln N*."""
  intervals = [np.exp(_around(np.log(v.optimum), errors[:, j])).tolist() for j, v in enumerate(found)]
  return [dataclasses.replace(v, interval=interval) if v.inside else v for v, interval in zip(found, intervals)]


def _around(value, errors):
  """The interval of the truth for an estimate whose errors are like these; it is widened to hold the estimate."""
  low, high = value - np.quantile(errors, [0.975, 0.025])
  return [float(min(low, value)), float(max(high, value))]


def _valley(params, examples, flops, loss, seed):
  order = np.argsort(params)
  params, examples, loss = params[order], examples[order], loss[order]
  used, centre, curve = _parabola(params, loss)
  u = np.log(params)
  bottom = _bottom(curve) + centre
  inside = bool(curve[0] > 0 and u[0] <= bottom <= u[-1])
  optimum = float(np.exp(bottom)) if curve[0] > 0 else float(params[np.argmin(loss)])
  optimum_loss = float(np.polyval(curve, np.log(optimum) - centre))
  interval = _interval(u[used] - centre, loss[used], curve, centre, seed)
  examples_optimum = float(np.exp(np.interp(np.log(optimum), u, np.log(examples))))
  return Valley(flops, params, examples, loss, used, curve, centre, optimum, examples_optimum, optimum_loss, inside,
                interval, _note(u, loss, used, curve, bottom, inside))


def _parabola(params, loss):
  """The points around the lowest loss, and their parabola in ln N - centre."""
  used, u = _around_lowest(params, loss), np.log(params)
  centre = u[used].mean()
  return used, centre, np.polyfit(u[used] - centre, loss[used], 2)


def _around_lowest(params, loss):
  sizes = np.unique(params)
  mean = np.array([loss[params == size].mean() for size in sizes])
  lowest = int(np.argmin(mean))
  near = sizes[max(0, lowest - AROUND):lowest + AROUND + 1]
  return np.isin(params, near)


def _bottom(curve):
  return -curve[1] / (2 * curve[0]) if curve[0] != 0 else np.inf


def _interval(u, loss, curve, centre, seed):
  """The 95% interval of N*; None without residual degrees of freedom.

  It is taken over the minima of parabolas whose coefficients are drawn from their Student t distribution. Resampling
  residuals instead covers the true N* only 85% of the time with four degrees of freedom.
  """
  freedom = len(u) - 3
  if freedom < 1 or curve[0] <= 0:
    return None
  design = np.vander(u, 3)
  variance = np.sum((loss - np.polyval(curve, u)) ** 2) / freedom
  random = np.random.default_rng(seed)
  root = np.linalg.cholesky(variance * np.linalg.inv(design.T @ design) + 1e-300 * np.eye(3))
  scale = np.sqrt(freedom / random.chisquare(freedom, (_DRAWS, 1)))
  curves = (curve + scale * (random.standard_normal((_DRAWS, 3)) @ root.T)).T
  bottoms = np.where(curves[0] > 0, -curves[1] / (2 * np.where(curves[0] > 0, curves[0], 1)), np.nan)
  return [float(v) for v in np.exp(np.clip(np.array(percentile(bottoms)) + centre, -700, 700))]


def _note(u, loss, used, curve, bottom, inside):
  if curve[0] <= 0:
    return 'no valley: the loss does not curve upwards'
  if not inside:
    return f'the minimum is {"below" if bottom < u[0] else "above"} the grid of sizes'
  inner = np.abs(u - u[np.argmin(loss)]).argsort()[:max(4, used.sum() - 2)]
  if len(np.unique(u[inner])) >= 4 and len(inner) < used.sum():
    moved = abs(_bottom(np.polyfit(u[inner] - bottom, loss[inner], 2)))
    if moved > 0.25:
      return f'the minimum moves by a factor of {np.exp(min(moved, 9)):.2g} without the outermost sizes'
  return ''
