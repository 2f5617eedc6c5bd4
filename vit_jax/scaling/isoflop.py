"""IsoFLOP valleys: at each budget the loss over model sizes, and the size where it is lowest.

Parabolas in log N (Hoffmann et al. 2022, section 3.2). On a wide grid they are biased even without noise, so only the
sizes around the lowest are used, and a valley whose optimum moves when the outer ones are dropped says so.
"""

import dataclasses

import numpy as np

from vit_jax.scaling.bootstrap import percentile
from vit_jax.scaling.frontier import PowerLaw, power_law

SAME_BUDGET = 0.03  # relative difference in FLOPs within which two runs share a budget
FEWEST_SIZES = 4
AROUND = 3  # sizes on each side of the lowest that the parabola uses
_DRAWS = 2000


@dataclasses.dataclass(frozen=True)
class Valley:
  """One budget.

  Attributes:
    flops; params [n] and loss [n], ascending in params; used [n]: the points of the parabola.
    curve, centre: the parabola's coefficients (highest power first) in ln N - centre.
    optimum, examples_optimum, optimum_loss: N*, D* and the loss there; interval: 95%, of N*, None with too few sizes.
    inside: whether N* lies between the smallest and the largest size; note: what is wrong, in words ('' if nothing).
  """
  flops: float
  params: np.ndarray
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
  """The budget that each point belongs to, int [n]: neighbours within SAME_BUDGET in FLOPs share one."""
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
  """N* = factor C^exponent through the optima that lie inside their grid; None with fewer than two.

  Weighted by the intervals where every one of them has one."""
  good = [v for v in found if v.inside]
  if len(good) < 2:
    return None
  sigma = None
  if all(v.interval and v.interval[1] > v.interval[0] > 0 for v in good):
    sigma = np.array([np.log(v.interval[1] / v.interval[0]) / 3.92 for v in good])  # a 95% interval is 3.92 sigma wide
  return power_law(np.array([v.flops for v in good]), np.array([v.optimum for v in good]), sigma)


def _valley(params, examples, flops, loss, seed):
  order = np.argsort(params)
  params, examples, loss = params[order], examples[order], loss[order]
  used = _around_lowest(params, loss)
  u = np.log(params)
  centre = u[used].mean()
  curve = np.polyfit(u[used] - centre, loss[used], 2)
  bottom = _bottom(curve) + centre
  inside = bool(curve[0] > 0 and u[0] <= bottom <= u[-1])
  optimum = float(np.exp(bottom)) if curve[0] > 0 else float(params[np.argmin(loss)])
  optimum_loss = float(np.polyval(curve, np.log(optimum) - centre))
  interval = _interval(u[used] - centre, loss[used], curve, centre, seed)
  examples_optimum = float(np.exp(np.interp(np.log(optimum), u, np.log(examples))))
  return Valley(flops, params, loss, used, curve, centre, optimum, examples_optimum, optimum_loss, inside, interval,
                _note(u, loss, used, curve, bottom, inside))


def _around_lowest(params, loss):
  sizes = np.unique(params)
  mean = np.array([loss[params == size].mean() for size in sizes])
  lowest = int(np.argmin(mean))
  near = sizes[max(0, lowest - AROUND):lowest + AROUND + 1]
  return np.isin(params, near)


def _bottom(curve):
  return -curve[1] / (2 * curve[0]) if curve[0] != 0 else np.inf


def _interval(u, loss, curve, centre, seed):
  """95% interval of N*: the bottoms of parabolas drawn from the Student t of their coefficients; None without spare
  points. (Resampled residuals of four spare points give intervals that hold the truth only 85% of the time.)"""
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
    return 'no valley: the loss does not bend upwards'
  if not inside:
    return f'the minimum lies {"below" if bottom < u[0] else "above"} its grid of sizes'
  inner = np.abs(u - u[np.argmin(loss)]).argsort()[:max(4, used.sum() - 2)]
  if len(np.unique(u[inner])) >= 4 and len(inner) < used.sum():
    moved = abs(_bottom(np.polyfit(u[inner] - bottom, loss[inner], 2)))
    if moved > 0.25:
      return f'the minimum moves by a factor of {np.exp(min(moved, 9)):.2g} without the outermost sizes'
  return ''
