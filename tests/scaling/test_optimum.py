"""Intervals of N* and D* are as much wider as forecasts of N* by fits to a part of the points miss."""

import dataclasses

import numpy as np
import pytest

from vit_jax.scaling import analysis, frontier
from vit_jax.scaling.frontier import Cost
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(3e6, 1e9, 8), np.geomspace(3e8, 3e10, 6), indexing='ij'))
BUDGET = 10 * 6 * 1e9 * 3e10


def right(n, d):
  return 1.69 + 406.4 * n ** -0.34 + 410.7 * d ** -0.28


def halves(n, d):
  """The exponent of N halves around 1e8."""
  return 1.69 + 406.4 * n ** -0.34 * (1 + (n / 1e8) ** 4) ** (0.34 / 8) + 410.7 * d ** -0.28


def analysed(truth, seed, refits=100, n=N, d=D):
  y = truth(n, d) * np.exp(0.01 * np.random.default_rng(seed).standard_normal(len(n)))
  names = [f'run {i}' for i in range(len(n))]
  points = Points('loss', None, y, {'params': n, 'examples': d}, names, np.arange(len(n)),
                  [{'run': name} for name in names], {})
  return analysis.analyse(points, analysis.Settings('chinchilla', Objective(), refits, budgets=(BUDGET,)))


@pytest.fixture(scope='module')
def laws():
  return {truth: [analysed(truth, seed) for seed in range(6)] for truth in (right, halves)}


def inside(law, truth):
  n = np.geomspace(1e7, 1e12, 100_001)
  low, high = law.law['compute_optimal']['rows'][0]['params_ci95']
  return low <= n[np.argmin(truth(n, BUDGET / 6 / n))] <= high


def test_an_exponent_that_changes_widens_the_interval_of_the_optimum(laws):
  factors = {truth: [law.boot.of_optimum for law in some] for truth, some in laws.items()}
  assert np.median(factors[right]) < 1.3 < 1.4 < np.median(factors[halves]), factors
  assert all(sum(inside(law, truth) for law in some) >= 5 for truth, some in laws.items())  # of six


def test_only_sizes_beyond_the_fitted_budgets_are_widened(laws):
  law = laws[halves][0]
  budgets = np.array([1e17, BUDGET])
  rows = [frontier.compute_optimal(law.fit, dataclasses.replace(law.boot, widening=1.0, of_optimum=factor), budgets,
                                   law.cost) for factor in (1.0, 2.0)]
  width = lambda name: [[np.log(np.divide(*row[name][::-1])) for row in some] for some in rows]
  for name in ('params_ci95', 'examples_ci95', 'examples_per_param_ci95'):
    np.testing.assert_allclose(np.divide(*width(name)[::-1]), [1, 2], rtol=0.01)
  np.testing.assert_allclose(*width('loss_ci95'))


def test_a_note_says_how_many_times(laws):
  law = max(laws[halves], key=lambda law: law.boot.of_optimum)
  assert law.law['bootstrap']['widening_of_optimum'] == law.boot.of_optimum
  assert any(words.startswith(f'intervals of N* and D* beyond the fitted budgets are {law.boot.of_optimum:.2g} times')
             for words in law.law['notes'])


def test_rows_of_one_lineage_count_as_one(laws):
  law = laws[halves][0]
  alone, shared = (frontier.widening_of_optimum(law.fit, Cost(), clusters)
                   for clusters in (np.arange(len(N)), np.unique(N, return_inverse=True)[1]))
  assert shared == pytest.approx(max(1.0, alone / np.sqrt(6)))


def test_few_sizes_forecast_nothing():
  few = [np.ravel(a) for a in np.meshgrid(np.geomspace(3e6, 1e9, 4), np.geomspace(3e8, 3e10, 4))]
  assert analysed(right, 0, 20, *few).boot.of_optimum == 1
