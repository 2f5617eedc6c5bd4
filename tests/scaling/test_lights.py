"""The three lights: each turns red for its reason, and the headline says it first."""

import numpy as np
import pytest
from scipy import stats

from vit_jax.errors import UserError
from vit_jax.scaling import analysis, lights, rollout, written
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

X = np.repeat(np.geomspace(1e3, 1e6, 12), 3)


def points(y, x=X, **of_rows):
  rows = [{'run': f'r{i}', **{key: values[i] for key, values in of_rows.items()}} for i in range(len(y))]
  return Points('loss', 'x', y, {'x': x}, [row['run'] for row in rows], np.arange(len(y)), rows, {})


def rows(inside, high, n):
  """n held-out points of which `inside` are in their intervals and `high` are predicted too high."""
  return [{'measured': 1.0, 'predicted': 1.1 if i < high else 0.9, 'inside': i < inside} for i in range(n)]


def law_of(tests, n, **more):
  return {'holdout': {'n': n, 'rmsle': 0.01, 'rmsle_persistence': 0.04, 'tests': tests}, 'ci95': {'c': [0.1, 0.2]},
          'not_identified': [], 'diagnostics': {'exponents': ['c']}} | more


def test_intervals_that_are_too_narrow_turn_the_light_red_with_both_tests():
  new = 1.0 + 0.01 * np.random.default_rng(0).standard_normal((400, 30))
  tests = lights.holdout_tests(rows(13, 25, 30), new, np.arange(30))
  assert tests['p_inside'] == pytest.approx(stats.binom.cdf(13, 30, 0.95)) and tests['too_high'] == 25
  found = lights.lights(law_of(tests, 30), None, None, [])
  assert found['calibrated']['light'] == 'red' and found['predictive']['light'] == 'green'
  assert found['calibrated']['reason'].startswith(
      'intervals too narrow: 13 of 30 held-out points inside where 28 are expected')
  assert '25 of 30 predictions too high' in found['calibrated']['reason']


def test_a_common_error_that_the_intervals_allow_for_is_no_fault():
  """The refits differ by 10% and the noise is 1%: all points may be on one side of the law."""
  random = np.random.default_rng(0)
  new = 1.0 + 0.1 * random.standard_normal((400, 1)) + 0.01 * random.standard_normal((400, 30))
  tests = lights.holdout_tests(rows(30, 30, 30), new, np.arange(30))
  assert tests['p_sign'] < 1e-6 and lights.lights(law_of(tests, 30), None, None, [])['calibrated']['light'] == 'green'
  alone = 1.0 + 0.1 * random.standard_normal((400, 30))
  tests = lights.holdout_tests([row | {'predicted': 1.05} for row in rows(30, 30, 30)], alone, np.arange(30))
  found = lights.lights(law_of(tests, 30), None, None, [])['calibrated']
  assert found['light'] == 'red' and found['reason'].startswith('predictions are one-sided: 30 of 30')


@pytest.mark.parametrize('n, light', [(7, 'amber'), (8, 'green')])
def test_few_points_do_not_make_a_light_green(n, light):
  new = 1.0 + 0.1 * np.random.default_rng(0).standard_normal((400, n))
  tests = lights.holdout_tests(rows(n, n // 2, n), new, np.arange(n))
  assert lights.lights(law_of(tests, n), None, None, [])['calibrated']['light'] == light


def test_many_points_of_few_runs_count_as_few():
  """Ten evaluations of each run: neither so many inside nor so many outside says more than the runs do."""
  new = 1.0 + 0.1 * np.random.default_rng(0).standard_normal((400, 60))
  tests = lights.holdout_tests(rows(50, 60, 60), new, np.arange(60))
  assert tests['p_inside'] < lights.REJECTED and tests['p_sign'] < lights.ONE_SIDED
  tests = lights.holdout_tests(rows(50, 60, 60), new, np.repeat(np.arange(6), 10))
  assert tests['p_inside'] == pytest.approx(stats.binom.cdf(5, 6, 0.95))
  assert tests['p_sign'] == pytest.approx(2 * 0.5 ** 6)
  found = lights.lights(law_of(tests, 60), None, None, [])['calibrated']
  assert found['light'] == 'amber' and '50 of 60 held-out points (6 independent runs or lineages)' in found['reason']


def test_no_change_that_is_closer_turns_the_light_red():
  law = law_of({'independent': 4, 'too_high': 2, 'p_sign': 1.0}, 4)
  law['holdout'] |= {'rmsle': 0.05}
  assert lights.lights(law, None, None, [])['predictive']['light'] == 'red'


def test_a_headline_with_a_failed_calibration_is_not_pleased():
  """The law bends beyond the fitted points: far more are outside their intervals than should be."""
  noise = np.exp(0.004 * np.random.default_rng(0).standard_normal(36))
  y = (0.5 + 30 * X ** -0.4) * noise * np.where(X > 1e5, 0.95, 1)
  law = analysis.analyse(points(y), analysis.Settings('power_offset', Objective(), 200, holdout='x>1e5')).law
  assert law['lights']['calibrated']['light'] == 'red'
  assert law['verdict'].startswith('intervals too narrow') and 'times as accurate' not in law['verdict']
  assert law['warnings'][0].startswith('intervals too narrow')


def test_an_interval_that_ends_at_a_bound_is_not_identified():
  """A term that falls so steeply that only the bound of the form limits its exponent."""
  noise = np.exp(0.01 * np.random.default_rng(1).standard_normal(36))
  x = np.repeat(np.geomspace(1, 8, 12), 3)
  y = (2 + 4 * x ** -4.95) * noise
  law = analysis.analyse(points(y, x), analysis.Settings('power_offset', Objective(), 200)).law
  assert law['diagnostics']['ends_at_bound'] == {'c': 'upper'} and 'c' in law['not_identified']
  assert law['lights']['identified'] == {'light': 'red', 'reason': 'c not identified'}
  assert any('ends at the upper bound of the form' in words for words in law['warnings'])


def test_forecasts_of_its_own_larger_runs_that_miss_turn_the_light_red():
  noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(36))
  found = points((0.5 + 30 * X ** -0.4) * noise)
  right, wrong = (analysis.analyse(found, analysis.Settings(form, Objective('log_lsq'), 0)).rollout
                  for form in ('power_offset', 'power'))
  assert rollout.misses(right) < lights.MISSED < rollout.misses(wrong)
  found = lights.lights(law_of(None, 0, holdout=None), None, rollout.misses(wrong), [])
  assert found['calibrated']['light'] == 'red' and found['predictive']['light'] == 'amber'


def test_groups_without_held_out_points_are_fitted_whole_and_said():
  y = (0.5 + 30 * X ** -0.4) * np.exp(0.01 * np.random.default_rng(0).standard_normal(36))
  small = X < 1e5
  groups = {'all': points(y), 'small': points(y[small], X[small])}
  found = analysis.analyse_groups(groups, analysis.Settings('power_offset', Objective(), 0, holdout='x>5e5'))
  assert found['all'].law['holdout']['n'] == 6 and found['small'].law['holdout'] is None
  assert found['small'].law['notes'] == ['--holdout=x>5e5 holds out none of this group: it is fitted whole']
  with pytest.raises(UserError, match='holds out no point of any group'):
    analysis.analyse_groups(groups, analysis.Settings('power_offset', Objective(), 0, holdout='x>5e9'))


def test_only_groups_that_are_asked_for_are_compared():
  assert analysis.pairs(['a', 'b']) == [('a', 'b')] and analysis.pairs(['a', 'b', 'c']) == []
  assert analysis.pairs(['a', 'b', 'c'], ['c', 'a']) == [('c', 'a')]
  assert len(analysis.pairs(['a', 'b', 'c'], ['all'])) == 3
  with pytest.raises(UserError, match="unknown group 'cn'; did you mean 'cnn'"):
    analysis.pairs(['cnn', 'b'], ['cn', 'b'])
  with pytest.raises(UserError, match='expected two groups'):
    analysis.pairs(['a', 'b'], ['a'])


@pytest.mark.parametrize('form, falls, warned', [('power_offset', False, True), ('power_offset', True, False),
                                                 ('1 - (E + A/x^a)', False, False)])
def test_a_metric_that_rises_where_the_law_only_falls_is_said(form, falls, warned):
  error = 0.1 + 5 * X ** -0.4 * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(X)))
  form = written.form(form, '', ('x',)) if '(' in form else form
  law = analysis.analyse(points(error if falls else 1 - error), analysis.Settings(form, Objective(), 20)).law
  assert any('loss rises with x (rank correlation' in words for words in law['warnings']) == warned
