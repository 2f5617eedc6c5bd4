"""What a comparison of two groups still needs, and where their laws cross."""

import numpy as np
import pytest

from vit_jax.scaling import analysis, decide
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

X = np.geomspace(1e3, 1e6, 12)


def compared(a, b, sigma, replicates=200):
  random, groups = np.random.default_rng(0), {}
  for name, law in (('a', a), ('b', b)):
    y = law(X) * np.exp(sigma * random.standard_normal(len(X)))
    groups[name] = Points('loss', 'x', y, {'x': X}, [f'{name}{i}' for i in range(12)], np.arange(12),
                          [{'run': f'{name}{i}', 'x': x} for i, x in enumerate(X)], {})
  found = analysis.analyse_groups(groups, analysis.Settings('power', Objective('log_lsq'), replicates))
  return analysis.multipliers(found, [('a', 'b')])[0]


def test_more_runs_are_asked_for_until_it_is_decided():
  clear = compared(lambda x: 30 * x ** -0.3, lambda x: 20 * x ** -0.3, 0.01)
  assert clear['runs_needed'] == {} and clear['p'] < 0.01 and 'not decided' not in clear['words']
  open_ = compared(lambda x: 30 * x ** -0.3, lambda x: 29.5 * x ** -0.3, 0.1)
  assert open_['p'] > 0.05 and (open_['runs_needed'] is None or min(open_['runs_needed'].values()) > 0)
  assert 'not decided' in open_['words']


def test_p_is_of_the_group_that_needs_less():
  laws = (lambda x: 30 * x ** -0.3), (lambda x: 20 * x ** -0.3)
  for pair, less in ((laws, 'b'), (laws[::-1], 'a')):  # either order: a p near 1 was said of the worse group
    row = compared(*pair, 0.01)
    assert f'; {less} needs less: p = 0.005' in row['words']  # 1 in 201: no refit of 200 says otherwise
    assert row['p' if less == 'b' else 'p_a'] == pytest.approx(1 / 201)
    assert row['p'] + row['p_a'] == pytest.approx(1 + 1 / 201)


def test_the_number_of_runs_follows_from_the_spread():
  spread = 0.2
  needed = decide.runs_needed(np.exp(-0.1645), spread, {'a': 10, 'b': 20})  # half of 1.645 standard deviations
  assert needed == {'a': 30, 'b': 60}  # four times as many in all
  assert decide.runs_needed(np.exp(-0.4), spread, {'a': 10, 'b': 20}) == {}
  assert decide.runs_needed(1.0, spread, {'a': 10, 'b': 10}) is None
  assert decide.runs_needed(2.0, np.inf, {'a': 10, 'b': 10}) is None


def test_laws_that_cross_are_warned_of():
  """30 x^-0.3 and 95 x^-0.4 are equal at x = (95 / 30)^10 = 1.015e5."""
  row = compared(lambda x: 30 * x ** -0.3, lambda x: 95 * x ** -0.4, 0.0, 0)
  assert row['crosses_at'] == pytest.approx(30 * ((95 / 30) ** 10) ** -0.3, rel=1e-3)
  assert 'the laws cross at loss 0.9' in row['words']
  assert compared(lambda x: 30 * x ** -0.3, lambda x: 20 * x ** -0.3, 0.0, 0)['crosses_at'] is None
