"""Allocation against brute force, power laws against NumPy, multipliers against their definition."""

import numpy as np
import pytest
from scipy import optimize, stats

from vit_jax.scaling import bootstrap, estimate, frontier, isoflop, verdict
from vit_jax.scaling.minimize import Objective

TRUE = np.array([[1.69], [406.4], [0.34], [410.7], [0.28]])
N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e8, 1e11, 6)))


def loss(n, d, factor=1.0):
  return 1.69 + 406.4 * n ** -0.34 + 410.7 * (d * factor) ** -0.28


@pytest.mark.parametrize('cost', [frontier.Cost(), frontier.Cost(k=100.0, q=0.9)], ids=['6ND', 'other'])
def test_allocation_is_the_minimum_over_n(cost):
  for budget in (1e18, 1e22):
    n, d, lowest = (float(a[0, 0]) for a in frontier.allocate(TRUE, np.array([budget]), cost))
    assert cost.k * n ** cost.q * d == pytest.approx(budget)
    at = lambda u, budget=budget: loss(np.exp(u), budget / (cost.k * np.exp(u * cost.q)))
    best = optimize.minimize_scalar(at, bounds=(5, 40), method='bounded', options={'xatol': 1e-9})
    assert np.log(n) == pytest.approx(best.x, abs=1e-4) and lowest == pytest.approx(best.fun, rel=1e-10)


def test_allocation_is_hoffmann_equation_4():
  E, A, alpha, B, beta = TRUE[:, 0]
  G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
  n, d, _ = frontier.allocate(TRUE, np.array([1e21]), frontier.Cost())
  assert n[0, 0] == pytest.approx(G * (1e21 / 6) ** (beta / (alpha + beta)))
  assert d[0, 0] == pytest.approx((1e21 / 6) ** (alpha / (alpha + beta)) / G)


def test_cost_comes_from_the_points():
  assert frontier.cost_law(N, D, 6 * N * D) == frontier.Cost(pytest.approx(6), 1.0, pytest.approx(0, abs=1e-9))
  other = frontier.cost_law(N, D, 50 * N ** 0.9 * D)
  assert (other.k, other.q) == (pytest.approx(50), pytest.approx(0.9))
  assert frontier.cost_law(N, D, None).assumed


def test_overtrain_has_the_frontier_of_the_tied_form():
  y = loss(N, D) * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(N)))
  rows = [frontier.compute_optimal(estimate.fit(form, {'params': N, 'examples': D}, y, Objective('log_lsq')), None,
                                   np.array([1e20]), frontier.Cost())[0] for form in ('chinchilla_tied', 'overtrain')]
  assert rows[0] == pytest.approx(rows[1], rel=1e-4)


def test_weighted_power_law_takes_sigma_not_its_inverse():
  x, sigma = np.geomspace(1, 1e4, 9), np.geomspace(0.01, 1, 9)
  y = 3 * x ** 0.5 * np.exp(sigma * np.random.default_rng(0).standard_normal(9))
  slope, offset = np.polyfit(np.log(x), np.log(y), 1, w=1 / sigma)  # numpy squares its weights
  weighted, plain = frontier.power_law(x, y, sigma), frontier.power_law(x, y)
  assert (weighted.exponent, np.log(weighted.factor)) == (pytest.approx(slope), pytest.approx(offset))
  assert plain.exponent == pytest.approx(np.polyfit(np.log(x), np.log(y), 1)[0])
  assert abs(weighted.exponent - 0.5) < 0.05


def test_multiplier_of_a_recipe_that_uses_data_twice_as_well():
  """B's loss at D is A's at 2 D, so B reaches the same loss at the same N with half the examples."""
  cost, fits = frontier.Cost(), []
  for factor in (1.0, 2.0):
    y = loss(N, D, factor) * np.exp(1e-3 * np.random.default_rng(1).standard_normal(len(N)))
    fit = estimate.fit('chinchilla', {'params': N, 'examples': D}, y, Objective('log_lsq'))
    fits.append((fit, bootstrap.run(fit, np.arange(len(N)), 200), cost))
  row = frontier.multiplier(*fits, 2.3, (6e14, 6e20))
  assert row['multiplier'] == pytest.approx(0.5, rel=0.03)  # at the same N, half of D is half of C = 6 N D
  assert row['ci95'][0] < 0.5 < row['ci95'][1] and row['ci95'][1] / row['ci95'][0] < 1.2


def test_a_loss_that_is_never_reached_needs_infinite_flops():
  fit = estimate.fit('chinchilla', {'params': N, 'examples': D}, loss(N, D))
  row = frontier.multiplier((fit, None, frontier.Cost()), (fit, None, frontier.Cost()), 1.0, (6e14, 6e20))
  assert row['needs_a'] == np.inf


def test_an_interval_whose_end_is_never_reached_is_open():
  row = {'a': 'cnn', 'b': 'vit', 'of': 'flops', 'metric': 'loss', 'loss': 0.5, 'multiplier': 3.0}
  for never in (3, 50):  # of 100; the quantile is between the last number and infinity, or between infinities
    values = np.concatenate([np.arange(1.0, 101.0 - never), np.full(never, np.inf), [np.nan]])
    low, high = bootstrap.percentile(values)
    assert low == pytest.approx(np.quantile(np.arange(1.0, 101.0), 0.025)) and high == np.inf
    assert '(95%: 3.48 or more)' in verdict.describe_multiplier(row | {'ci95': [low, high]})
  for nothing in (0.0, np.inf, np.nan):  # the multiplier of a law that never reaches the loss
    assert verdict.describe_multiplier(row | {'multiplier': nothing}).startswith('vit and cnn: no loss that both')
  assert '(95%: 2 to 4)' in verdict.describe_multiplier(row | {'ci95': [2.0, 4.0]})


def _grid(centre=1.0, spread=4.0, sizes=9, budgets=(1e18, 1e19, 1e20)):
  """IsoFLOP runs around the true optimum of each budget."""
  rows = []
  for budget in budgets:
    best = float(frontier.allocate(TRUE, np.array([budget]), frontier.Cost())[0][0, 0])
    n = best * centre * np.geomspace(1 / spread, spread, sizes)
    rows += [(v, budget / (6 * v), budget, loss(v, budget / (6 * v))) for v in n]
  return np.array(rows).T


def test_valleys_find_the_optimum_and_its_exponent():
  found = isoflop.valleys(*_grid(spread=2.0))
  truth = frontier.allocate(TRUE, np.array([v.flops for v in found]), frontier.Cost())[0][0]
  assert [v.optimum for v in found] == pytest.approx(list(truth), rel=0.03)
  assert all(v.inside and v.note == '' for v in found)
  assert isoflop.optimal_pairs(found).exponent == pytest.approx(0.28 / 0.62, abs=0.01)


def test_a_minimum_outside_its_grid_is_marked():
  below, above = (isoflop.valleys(*_grid(centre, 2.0)) for centre in (12, 1 / 12))
  assert all(not v.inside and 'below the grid' in v.note for v in below)
  assert all(not v.inside and 'above the grid' in v.note for v in above)
  assert isoflop.optimal_pairs(above) is None


def test_interval_of_a_valley_covers_the_true_optimum():
  params, examples, flops, y = _grid(spread=3.0, sizes=7)
  y = y * np.exp(0.003 * np.random.default_rng(0).standard_normal(len(y)))
  found = isoflop.valleys(params, examples, flops, y)
  truth = frontier.allocate(TRUE, np.array([v.flops for v in found]), frontier.Cost())[0][0]
  assert all(v.interval[0] < t < v.interval[1] for v, t in zip(found, truth))


def test_budgets_that_differ_by_rounding_are_one():
  flops = np.array([1e18, 1.01e18, 0.995e18, 2e18, 2.01e18])
  assert isoflop.budgets(flops).tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize('noise', [0.003, 0.0003])
def test_the_bias_of_the_parabola_is_in_the_intervals(noise):
  """Sizes x1/8 to x8 on a steep surface: the parabola is off by more than its own noise, but not the interval."""
  true, budgets = np.array([[0.5], [3e3], [0.684], [3e2], [0.439]]), np.array([1e15, 1e16, 1e17, 1e18])
  best = frontier.allocate(true, budgets, frontier.Cost())[0][0]
  params = (best[:, None] * 1.4 * np.geomspace(1 / 8, 8, 9)).ravel()
  flops = np.repeat(budgets, 9)
  examples, held, own, exponents = flops / (6 * params), [], [], []
  exact = 0.5 + 3e3 * params ** -0.684 + 3e2 * examples ** -0.439
  for seed in range(6):
    y = exact * np.exp(noise * np.random.default_rng(seed).standard_normal(36))
    fit = estimate.fit('chinchilla', {'params': params, 'examples': examples}, y, exact=False)
    found = isoflop.valleys(params, examples, flops, y)
    surface = lambda n, d, fit=fit: fit.predict({'params': n, 'examples': d})
    errors = isoflop.simulate(found, surface, fit.sigma, 31, True)
    held += [low <= n <= high for (low, high), n in zip((v.interval for v in isoflop.calibrated(found, errors)), best)]
    own += [low <= n <= high for (low, high), n in zip((v.interval for v in found), best)]
    low, high = isoflop.exponent(found, errors)['ci95']
    exponents.append(low <= 0.439 / (0.684 + 0.439) <= high)
  assert np.mean(held) > 0.9 and np.mean(own) < 0.85 and np.mean(exponents) >= 4 / 6


def test_without_a_surface_the_exponent_has_students_interval():
  found = isoflop.valleys(*_grid(spread=2.0))
  law, out = isoflop.optimal_pairs(found), isoflop.exponent(found)
  half = stats.t.ppf(0.975, 1) * law.stderr
  assert out['ci95'] == pytest.approx([law.exponent - half, law.exponent + half]) and out['bias'] is None
