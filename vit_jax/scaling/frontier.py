"""What a law implies for compute budgets: the compute-optimal model and data size, and the compute that a recipe saves.

All but the multiplier need a form in N (params) and D (examples). The cost C = k N^q D is fitted to the flops column of
the points, so FLOPs are counted as in the points (k = 6, q = 1 is the usual count for tokens). The error of that fit is
reported.
"""

import dataclasses

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import estimate
from vit_jax.scaling.bootstrap import Bootstrap, percentile
from vit_jax.scaling.estimate import Fit
from vit_jax.scaling.forms import Form

_SEARCH = np.log(1e8)  # the reach of a search for N* from the middle of the points
KEPT = 2 / 3  # of the sizes, or the lengths, that a forecast of N* is fitted to
FEWEST = 4  # sizes, and lengths, of such a fit: a power law with offset has three coefficients
FORECAST = 10.0  # times the largest budget, of which the N* is forecast
COST_SPREAD = 0.05  # relative error above which C = k N^q D does not describe the points


@dataclasses.dataclass(frozen=True)
class Cost:
  """C = k N^q D in FLOPs.

  Attributes:
    k: the factor.
    q: the exponent of N.
    spread: the largest relative error of a point.
    assumed: whether the points have no flops column, so that k and q are assumed.
  """
  k: float = 6.0
  q: float = 1.0
  spread: float = 0.0
  assumed: bool = False

  def describe(self) -> str:
    """The cost in one sentence."""
    if self.assumed:
      return 'C = 6 N D is assumed because the points have no flops column; it holds for one token per example'
    power = '' if self.q == 1 else f'^{self.q:.4g}'
    return f'C = {self.k:.4g} N{power} D, from the points (within {100 * max(self.spread, 1e-4):.2g}%)'


@dataclasses.dataclass(frozen=True)
class PowerLaw:
  """y = factor x^exponent; `stderr` is the standard error of the exponent (NaN with two points)."""
  factor: float
  exponent: float
  stderr: float

  def __call__(self, x):
    return self.factor * np.asarray(x, float) ** self.exponent


def power_law(x: np.ndarray, y: np.ndarray, sigma: np.ndarray | None = None) -> PowerLaw:
  """Fits a power law by least squares of ln y on ln x.

  Args:
    x: [n].
    y: [n].
    sigma: [n], the standard deviations of ln y; each point is weighted by 1/sigma^2. Default: equal weights.
  """
  u, v = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
  w = np.ones(len(u)) if sigma is None else 1 / np.asarray(sigma, float) ** 2
  mean_u, mean_v = np.average(u, weights=w), np.average(v, weights=w)
  du = u - mean_u
  spread = np.sum(w * du * du)
  exponent = np.sum(w * du * (v - mean_v)) / spread
  rest = v - mean_v - exponent * du
  freedom = len(u) - 2
  stderr = np.sqrt(np.sum(w * rest ** 2) / freedom / spread) if freedom > 0 else np.nan
  return PowerLaw(float(np.exp(mean_v - exponent * mean_u)), float(exponent), float(stderr))


def cost_law(params: np.ndarray, examples: np.ndarray, flops: np.ndarray | None) -> Cost:
  """Fits C = k N^q D to the points; q = 1 if N does not vary or if q = 1 is accurate to 0.1%."""
  if flops is None:
    return Cost(assumed=True)
  per_example = flops / examples
  k, q = float(np.exp(np.mean(np.log(per_example / params)))), 1.0
  if len(np.unique(params)) > 1 and _spread(per_example, k * params) > 1e-3:
    law = power_law(params, per_example)
    k, q = law.factor, law.exponent
  return Cost(k, q, _spread(per_example, k * params ** q))


def chinchilla_coefficients(names: tuple[str, ...], coefficients: np.ndarray) -> np.ndarray | None:
  """(E, A, alpha, B, beta) [5, R] from the coefficients [R, k] of a form in N and D; None for other forms."""
  c = dict(zip(names, coefficients.T))
  if {'A', 'B'} <= c.keys():
    return np.stack([c['E'], c['A'], c['alpha'], c['B'], c.get('beta', c['alpha'])])
  if {'E', 'a', 'b', 'c'} == c.keys():  # overtrain
    return np.stack([c['E'], c['a'], -c['b'], c['c'] * 6 ** (c['b'] / 2), -c['b']])
  return None


def allocate(abcde: np.ndarray, budgets: np.ndarray, cost: Cost) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """The compute-optimal N*, D* and loss, each [R, m], for (E, A, alpha, B, beta) [5, R] at budgets [m] in FLOPs.

  Minimizes A N^-alpha + B D^-beta subject to C = k N^q D: N* = (alpha A / (q beta B))^(1/(alpha + q beta))
  (C/k)^(beta/(alpha + q beta)). With k = 6 and q = 1 this is equation 4 of Hoffmann et al. 2022.
  """
  E, A, alpha, B, beta = abcde[:, :, None]
  with np.errstate(all='ignore'):
    total = alpha + cost.q * beta
    log_n = (np.log(alpha * A / (cost.q * beta * B)) + beta * np.log(np.asarray(budgets) / cost.k)) / total
    params = np.exp(log_n)
    examples = np.asarray(budgets) / (cost.k * params ** cost.q)
    loss = E + A * params ** -alpha + B * examples ** -beta
  return params, examples, loss


def compute_optimal(fit: Fit, boot: Bootstrap | None, budgets: np.ndarray, cost: Cost) -> list[dict] | None:
  """The compute-optimal sizes at each budget.

  Returns:
    A row {flops, params, examples, examples_per_param, loss} per budget. With a bootstrap, all but flops also have an
    interval NAME_ci95, and loss_run_ci95 is the prediction interval of a new run. None for forms not in N and D.
  """
  if not has_optimum(fit, cost):
    return None
  budgets = np.asarray(budgets, float)
  point = np.stack(_optimum(fit.form, fit.theta[None], budgets, cost))
  draws = None if boot is None else _optima(boot, budgets, cost)
  rows = []
  for i, budget in enumerate(budgets):
    n, d, loss = (float(a[0, i]) for a in point)
    row = {'flops': float(budget), 'params': n, 'examples': d, 'examples_per_param': d / max(n, 1e-300), 'loss': loss}
    if draws is not None:
      ns, ds, losses = (a[:, i] for a in draws)
      row |= {'params_ci95': percentile(ns), 'examples_ci95': percentile(ds), 'examples_per_param_ci95':
              percentile(ds / ns), 'loss_ci95': percentile(losses)}
      row['loss_run_ci95'] = percentile(boot.with_noise(losses))
    rows.append(row)
  return rows


def optimal_losses(boot: Bootstrap, budgets: np.ndarray, cost: Cost) -> np.ndarray:
  """The compute-optimal losses of each refit, [R, m]; beyond the fitted budgets they are widened."""
  return _optima(boot, budgets, cost)[2]


def _optima(boot, budgets, cost):
  """N*, D* and the loss of each refit, [3, R, m]; beyond the fitted budgets they are widened."""
  best, fit = lambda form, theta: np.stack(_optimum(form, theta, budgets, cost)), boot.fit
  values, middle, factor = boot.each(best, axis=1), best(fit.form, fit.theta[None]), budgets / _largest(fit, cost)
  sized = dataclasses.replace(boot, widening=max(boot.widening, boot.of_optimum))
  return np.concatenate([sized.widened(values[:2], middle[:2], factor), boot.widened(values[2:], middle[2:], factor)])


def _largest(fit, cost):
  """The FLOPs of the largest fitted point."""
  return np.max(cost.k * fit.columns['params'] ** cost.q * fit.columns['examples'])


def widening_of_optimum(fit: Fit, cost: Cost, clusters: np.ndarray) -> float:
  """How many times as wide intervals of N* and D* beyond the fitted budgets have to be, at least 1.

  N* is forecast by a fit to the smaller sizes (KEPT of them) and by one to the shorter lengths. The variance of the
  difference between a forecast and the law's N* is the difference of their variances, because the fit to all points is
  the efficient one (Hausman 1978). The root mean square of the differences in units of that is the scale factor of the
  Particle Data Group (see `rollout.widening`). The rows of one cluster count as one. 1 for forms of which N* has no
  closed form, and where no forecast can be fitted.
  """
  if not fit.form.in_chinchilla_terms:
    return 1.0
  budget, found = np.array([FORECAST * _largest(fit, cost)]), []
  at = lambda form, theta: np.log(_optimum(form, theta, budget, cost)[0])[:, 0]
  whole = _variance(fit, at)
  for name in ('params', 'examples'):
    sizes = np.unique(fit.columns[name])
    inside = fit.columns[name] <= sizes[max(int(KEPT * len(sizes)) - 1, 0)]
    if min(len(np.unique(fit.columns[key][inside])) for key in ('params', 'examples')) < FEWEST:
      continue
    try:
      part = estimate.fit(type(fit.form), {key: values[inside] for key, values in fit.columns.items()}, fit.y[inside],
                          fit.objective, fit.weights[inside], exact=False)
    except UserError:  # too few points
      continue
    error = at(part.form, part.theta[None])[0] - at(fit.form, fit.theta[None])[0]
    noise = max(part.sigma, fit.sigma) ** 2 * len(fit.y) / len(np.unique(clusters))
    spread = _variance(part, at)
    with np.errstate(all='ignore'):  # points without noise
      found.append(error ** 2 / (noise * max(spread - whole, spread / 10)))
  return max(1.0, float(np.sqrt(np.mean(found)))) if found and np.isfinite(found).all() else 1.0


def _variance(fit, of):
  """The variance of `of(form, theta)` by the delta method, in units of the noise's; an E of 0 counts as free."""
  value, jacobian = (a[0] for a in fit.form.model(fit.theta[None], fit.columns))
  free = ((fit.theta > fit.form.lower) & (fit.theta < fit.form.upper)) | fit.form.from_zero
  slopes = ((jacobian / value if fit.objective.log else jacobian) * np.sqrt(fit.weights))[free]
  step = 1e-4 * np.eye(len(fit.theta))[free]
  gradient = (of(fit.form, fit.theta + step) - of(fit.form, fit.theta - step)) / 2e-4
  return float(gradient @ np.linalg.pinv(slopes @ slopes.T, rcond=1e-12) @ gradient)


def frontier_exponents(fit: Fit, boot: Bootstrap | None, cost: Cost) -> dict | None:
  """The exponents of N* and D* as powers of C: {'params': {value, ci95}, 'examples': ...}; None for other forms."""
  if not has_optimum(fit, cost):
    return None
  def exponents(form, theta):
    if form.in_chinchilla_terms:
      _, _, alpha, _, beta = _abcde(form, theta)
      a = beta / (alpha + cost.q * beta)
    else:  # the slope in the middle of the points
      middle = cost.k * form.reference['params'] ** cost.q * form.reference['examples']
      n = np.log(_optimum(form, theta, middle * np.array([0.5, 2.0]), cost)[0])
      a = (n[:, 1] - n[:, 0]) / np.log(4.0)
    return np.stack([a, 1 - cost.q * a])
  value, draws = exponents(fit.form, fit.theta[None]), None if boot is None else boot.each(exponents, axis=1)
  return {name: {'value': float(value[i, 0])} | ({} if draws is None else {'ci95': percentile(draws[i])})
          for i, name in enumerate(('params', 'examples'))}


def _abcde(form, theta):
  return chinchilla_coefficients(form.names, form.natural(theta))


def has_optimum(fit: Fit, cost: Cost) -> bool:
  """Whether a law is in N and D and has a compute-optimal size, as not every written form has."""
  if fit.form.in_chinchilla_terms:
    return True
  if set(fit.form.inputs) != {'params', 'examples'}:
    return False
  middle = cost.k * fit.form.reference['params'] ** cost.q * fit.form.reference['examples']
  return bool(np.isfinite(_optimum(fit.form, fit.theta[None], np.array([middle]), cost)[0]).all())


def _optimum(form, theta, budgets, cost):
  """N*, D* and loss [R, m]: in closed form, or for other forms by search; NaN where the search ends at its limits."""
  if form.in_chinchilla_terms:
    return allocate(_abcde(form, theta), budgets, cost)
  log_n = np.log(form.reference['params']) + np.linspace(-_SEARCH, _SEARCH, 301)
  step, found = log_n[1] - log_n[0], []
  at = lambda n, budget: {'params': np.exp(n), 'examples': budget / (cost.k * np.exp(cost.q * n))}
  for budget in np.asarray(budgets, float):
    with np.errstate(all='ignore'):
      loss = form.model(theta, at(log_n, budget))[0]
      i = np.clip(np.argmin(np.where(np.isfinite(loss), loss, np.inf), axis=1), 1, len(log_n) - 2)
      low, middle, high = (loss[np.arange(len(loss)), i + k] for k in (-1, 0, 1))
      move = 0.5 * (low - high) / np.where(low - 2 * middle + high > 0, low - 2 * middle + high, np.nan)
      best = log_n[i] + step * np.where(np.abs(move) <= 1, move, np.nan)  # the vertex of the parabola through three
      found.append((np.exp(best), at(best, budget)['examples'], middle - 0.25 * (low - high) * move))
  return tuple(np.stack(part, 1) for part in zip(*found))


def needed(form: Form, theta: np.ndarray, loss: float, cost: Cost, span: tuple[float, float]) -> np.ndarray:
  """The compute-optimal FLOPs [R] at which each refit theta [R, p] reaches `loss`; for a form of x, the value of x.

  Args:
    form: a form of x, or one in N and D, of which the compute-optimal frontier is used.
    theta: [R, p].
    loss: the loss to reach.
    cost: the cost of N and D.
    span: the lowest and highest FLOPs, or x, of the points. The search covers 1e-3 of the lowest to 1e3 of the highest.

  Returns:
    inf for a refit that never reaches the loss, NaN for one that is below it from the start of the search.
  """
  budgets = np.geomspace(span[0] / 1e3, span[1] * 1e3, 2001)
  if form.inputs == ('x',):
    losses = form.model(theta, {'x': budgets})[0]
  elif form.in_chinchilla_terms:
    losses = allocate(_abcde(form, theta), budgets, cost)[2]
  else:
    coarse = budgets[::50]
    by_search = _optimum(form, theta, coarse, cost)[2]
    losses = np.stack([np.interp(np.log(budgets), np.log(coarse), row, np.nan, np.nan) for row in by_search])
  reached = losses <= loss  # losses decrease with the budget
  first = np.argmax(reached, axis=1)
  row = np.arange(len(losses))
  low, high = np.log(losses[row, np.maximum(first - 1, 0)]), np.log(losses[row, first])
  share = np.clip((low - np.log(loss)) / np.where(low > high, low - high, 1), 0, 1)
  step = np.log(budgets[1] / budgets[0])
  out = np.exp(np.log(budgets[np.maximum(first - 1, 0)]) + share * step)
  return np.where(reached.any(1), np.where(first == 0, np.nan, out), np.inf)


def multiplier(a: tuple[Fit, Bootstrap | None, Cost], b: tuple[Fit, Bootstrap | None, Cost], loss: float,
               span: tuple[float, float]) -> dict:
  """The fraction of A's FLOPs (or x) that B needs to reach `loss`.

  Returns:
    {loss, needs_a, needs_b, multiplier}, with intervals also ci95, spread (the standard deviation of the multiplier's
    logarithm), p, the p-value of "B needs less", one-sided: the share of the refits in which it does not, and p_a,
    that of "A needs less".
  """
  needs = [float(needed(fit.form, fit.theta[None], loss, cost, span)[0]) for fit, _, cost in (a, b)]
  with np.errstate(all='ignore'):
    out = {'loss': float(loss), 'needs_a': needs[0], 'needs_b': needs[1],
           'multiplier': float(np.divide(needs[1], needs[0]))}
  if a[1] is not None and b[1] is not None:
    draws = [boot.each(lambda form, theta, cost=cost: needed(form, theta, loss, cost, span))
             for _, boot, cost in (a, b)]
    size = min(map(len, draws))
    random = np.random.default_rng(a[1].seed)
    if not (a[1].paired and b[1].paired):  # the refits of the groups are independent, so pair them at random
      draws = [random.permutation(draw) for draw in draws[::-1]][::-1]
    with np.errstate(all='ignore'):
      ratio = draws[1][:size] / draws[0][:size]
    decided = ratio[~np.isnan(ratio)]
    logs = np.log(ratio[np.isfinite(ratio) & (ratio > 0)])
    out['spread'] = float(np.std(logs)) if len(logs) > 0.9 * len(ratio) else float('inf')
    out |= {'ci95': percentile(ratio), 'p': float((np.sum(decided >= 1) + 1) / (len(decided) + 1)),
            'p_a': float((np.sum(decided <= 1) + 1) / (len(decided) + 1))}
  return out


def _spread(values, law):
  return float(np.max(np.abs(values / law - 1)))
