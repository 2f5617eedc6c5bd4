"""Intervals: reproducible, over lineages and not rows, and wider for a run than for the law."""

import numpy as np
import pytest

from vit_jax.scaling import bootstrap, estimate
from vit_jax.scaling.minimize import Objective

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e8, 1e11, 6)))
COLUMNS = {'params': N, 'examples': D}
TRUE = {'E': 1.69, 'A': 406.4, 'alpha': 0.34, 'B': 410.7, 'beta': 0.28}
LAW = 1.69 + 406.4 * N ** -0.34 + 410.7 * D ** -0.28


def fitted(sigma=0.01, seed=0, objective='log_lsq'):
  y = LAW * np.exp(sigma * np.random.default_rng(seed).standard_normal(len(LAW)))
  return estimate.fit('chinchilla', COLUMNS, y, Objective(objective))


def width(boot, name='alpha'):
  low, high = boot.interval()[name]
  return high - low


def test_intervals_depend_on_the_seed_alone():
  fit = fitted()
  first, again, other = (bootstrap.run(fit, np.arange(48), 100, seed) for seed in (3, 3, 4))
  assert first.interval() == again.interval() != other.interval()


def test_intervals_agree_with_a_loop_of_single_fits():
  """Each refit equals estimate.fit, including its grid, on the rows that the weights repeat."""
  fit = fitted()
  boot = bootstrap.run(fit, np.arange(48), 12, 5)
  assert boot.failed == 0
  weights = np.random.default_rng(5).multinomial(48, np.full(48, 1 / 48), size=12)
  for coefficients, counts in zip(boot.coefficients, weights):
    rows = np.repeat(np.arange(48), counts)
    single = estimate.fit('chinchilla', {k: v[rows] for k, v in COLUMNS.items()}, fit.y[rows], Objective('log_lsq'))
    np.testing.assert_allclose(coefficients[2], single.coefficients['alpha'], rtol=1e-4)


def test_coverage_is_at_least_85_percent():
  """60 draws: between 85% and 100% for a true 95% (binomial, p < 0.002); experiments/law_coverage has 200 draws."""
  inside = []
  for seed in range(60):
    interval = bootstrap.run(fitted(seed=seed), np.arange(48), 200, seed).interval()
    inside.append([interval[name][0] <= value <= interval[name][1] for name, value in TRUE.items()])
  assert np.all(np.mean(inside, axis=0) > 0.85)


def test_lineages_are_resampled_whole():
  """Branches share the deviation of their trunk, so resampling rows as if independent gives too narrow an interval."""
  random, lineage = np.random.default_rng(0), np.unique(N, return_inverse=True)[1]
  sizes = np.repeat(np.arange(8), 3) * 3 + np.tile(np.arange(3), 8)  # three trunks per size
  n, trunk = np.repeat(np.geomspace(1e6, 1e9, 8)[np.arange(24) // 3], 6), np.repeat(sizes, 6)
  d = np.tile(np.geomspace(1e8, 1e11, 6), 24)
  y = (1.69 + 406.4 * n ** -0.34 + 410.7 * d ** -0.28) * np.exp(0.02 * random.standard_normal(24)[trunk])
  fit = estimate.fit('chinchilla', {'params': n, 'examples': d}, y, Objective('log_lsq'))
  rows, trunks = (bootstrap.run(fit, clusters, 300, 0) for clusters in (np.arange(len(y)), trunk))
  assert trunks.clusters == 24 and rows.clusters == 144 and len(lineage) == 48
  assert width(trunks) > 1.5 * width(rows)


def test_too_few_lineages_give_no_interval():
  assert bootstrap.run(fitted(), np.zeros(48, int), 100) is None
  assert bootstrap.run(fitted(), np.arange(48), 0) is None


def test_a_run_varies_more_than_the_law():
  boot = bootstrap.run(fitted(0.03), np.arange(48), 300, 0)
  law, run = boot.bands({'params': np.array([1e7, 1e9]), 'examples': np.array([1e9, 1e11])})
  assert np.all(run[0] < law[0]) and np.all(law[1] < run[1])
  assert np.all(np.log(run[1] / run[0]) == pytest.approx(2 * 1.96 * 0.03, rel=0.35))
