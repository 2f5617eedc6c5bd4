"""Forecasts of a law's own larger runs, and how they widen its intervals."""

import dataclasses

import numpy as np
import pytest

from vit_jax.scaling import analysis, rollout
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

X = np.geomspace(1e3, 1e7, 16)
LSQ = Objective('log_lsq')
OFFSET = 0.5 + 30 * X ** -0.4


def points(y, noise=0.003, **columns):
  columns = columns or {'x': X}
  y = y * np.exp(noise * np.random.default_rng(0).standard_normal(len(y)))
  names = [f'run {i}' for i in range(len(y))]
  return Points('loss', 'examples' if 'x' in columns else None, y, columns, names, np.arange(len(y)),
                [{'run': name} for name in names], {})


def widths(law, x):
  """The widths of a form's own band at x, in logarithms, and what they would be without the widening."""
  own = dataclasses.replace(law.boot, broken=None)
  return [np.log(np.divide(*boot.bands({'x': x})[0][::-1])) for boot in (own, dataclasses.replace(own, widening=1.0))]


def test_rollout_errors_grow_with_distance():
  rows = rollout.rollout(points(0.5 + 30 * X ** -0.4, 0.002), 'power', LSQ)  # the wrong form
  near = np.mean([abs(r['error']) for r in rows if r['factor'] < 4])
  far = np.mean([abs(r['error']) for r in rows if r['factor'] > 100])
  assert far > 3 * near
  assert all(r['persistence'] >= -0.05 for r in rows)  # the loss decreases, so "no change" is always too high


def test_sizes_that_differ_by_rounding_are_one_in_a_rollout():
  budget = np.repeat(np.geomspace(1e3, 1e6, 4), 6) * np.tile(1 + 1e-4 * np.arange(6), 4)
  rows = rollout.rollout(points(5 * budget ** -0.2, x=budget), 'power', LSQ)
  assert min(row['factor'] for row in rows) > 9
  medians = rollout.medians(rows)
  assert [round(np.log10(row['factor'])) for row in medians] == [1, 2]  # no fit to one size alone
  assert all(row['error'] < row['persistence'] for row in medians)


def test_a_fit_needs_more_sizes_than_coefficients():
  """Two sizes of ten seeds are twenty points, but no three coefficients."""
  x = np.repeat(np.geomspace(1e3, 1e6, 6), 10)
  rows = rollout.rollout(points(0.5 + 30 * x ** -0.4, x=x), 'power_offset', LSQ)
  assert {round(row['fitted_to']) for row in rows} == {63_096, 251_189}  # four and five sizes


def test_forecasts_that_miss_widen_what_is_said_beyond_the_fitted_sizes():
  law = analysis.analyse(points(OFFSET), analysis.Settings('power', LSQ, 100))  # the wrong form
  wider, (wide, refitted) = law.boot.widening, widths(law, X[-1] * np.array([0.01, 1.0, 2.0, 20.0]))
  assert wider > 2 and law.law['bootstrap']['widening'] == wider
  np.testing.assert_allclose(wide, [*refitted[:2], *wider * refitted[2:]], rtol=0.01)
  assert any(f'{wider:.2g} times as wide as the refits say' in note for note in law.law['notes'])


def test_forecasts_that_come_true_widen_little():
  law = analysis.analyse(points(OFFSET), analysis.Settings('power_offset', LSQ, 100))
  assert law.boot.widening < 1.4


def test_held_out_points_do_not_widen():
  """Whatever the values of held-out points, the intervals stay the same."""
  settings = analysis.Settings('power', LSQ, 50, holdout='largest:3')
  laws = [analysis.analyse(points(np.where(np.arange(16) >= 13, factor, 1.0) * OFFSET), settings)
          for factor in (1.0, 7.0)]
  assert laws[0].boot.widening == laws[1].boot.widening > 1
  assert laws[0].law['holdout']['rows'][-1]['ci95'] == laws[1].law['holdout']['rows'][-1]['ci95']


@pytest.mark.parametrize('name', ['params_ci95', 'examples_ci95', 'examples_per_param_ci95', 'loss_ci95'])
def test_compute_optimal_sizes_are_widened_beyond_the_fitted_budgets(name):
  n, d = (a.ravel() for a in np.meshgrid(np.geomspace(1e5, 1e8, 6), np.geomspace(1e6, 1e9, 6)))
  found = points(1 + 100 * n ** -0.3 + 100 * d ** -0.3, params=n, examples=d)
  law = analysis.analyse(found, analysis.Settings('chinchilla', LSQ, 50, budgets=(1e13, 1e20)))
  rows = {wider: analysis.frontier.compute_optimal(
      law.fit, dataclasses.replace(law.boot, widening=wider, of_optimum=1.0), np.array([1e13, 1e20]), law.cost)
      for wider in (1.0, 2.0)}
  width = {wider: [np.log(row[name][1] / row[name][0]) for row in some] for wider, some in rows.items()}
  np.testing.assert_allclose(width[2.0], np.array(width[1.0]) * [1, 2], rtol=0.01)


def test_an_irreducible_part_of_zero_explains_forecasts_that_are_too_low_and_no_others():
  """It could still appear, and then the losses of larger runs were higher, and never lower."""
  x = np.repeat(X, 2)
  log = np.log(x / X[0])
  y = 2 * np.exp(-0.25 * log - 0.005 * log ** 2) * np.where(x > X[10], np.tile([0.6, 1.6], 16), 1.0)
  rows = [row for row in rollout.rollout(points(y, 0.01, x=x), 'power_offset', LSQ)
          if 0.9 * X[6] < row['fitted_to'] < X[10] and row['fitted_to'] * row['factor'] > X[11]]
  high, low = ([row['expected'] for row in rows if (row['error'] < 0) == below] for below in (False, True))
  assert len(high) == len(low) >= 4 and np.all(np.array(low) > 1.2 * np.array(high)), (low, high)


def test_refits_of_another_sign_stay_as_they_are():
  """A form may be below 0 far out; its interval still has two ends."""
  law = analysis.analyse(points(OFFSET), analysis.Settings('power', LSQ, 20))
  wide = dataclasses.replace(law.boot, widening=2.0).widened(
      np.array([[-0.1, 4.0], [2.0, 1.0]]), np.array([1.0, 2.0]), np.array([20.0, 20.0]))
  np.testing.assert_allclose(wide, [[-0.1, 8.0], [4.0, 0.5]])
