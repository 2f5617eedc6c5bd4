"""The design of sweeps: narrower than a grid, expected widths that come true, and errors."""

import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.scaling import design, estimate, written
from vit_jax.scaling.frontier import Cost
from vit_jax.scaling.minimize import Objective

SIZES, LENGTHS = np.geomspace(1e4, 1e6, 6), np.geomspace(1e5, 3e6, 5)
AIM = {'params': 1e7, 'examples': 1e8}
TRUE = 'E=0.2,A=20,alpha=0.4,B=30,beta=0.35,sigma=0.01'
CHINCHILLA = estimate.form_class('chinchilla')
loss = lambda n, d: 0.2 + 20 * n ** -0.4 + 30 * d ** -0.35
N, D = (a.ravel() for a in np.meshgrid(SIZES[:4], LENGTHS[:4]))


def assumed(text=TRUE, form=CHINCHILLA):
  return design.assume(text, form, SIZES, LENGTHS)


@pytest.mark.parametrize('cooldown', [0.3, None])
@pytest.mark.parametrize('budget', [1e12, 2e13])
def test_a_design_keeps_its_budget_and_is_narrower_than_a_grid(budget, cooldown):
  law = assumed()
  found = design.choose(law, AIM, SIZES, LENGTHS, Cost(), budget, cooldown)
  assert 0 < found.flops <= budget and 1 < found.after < found.before
  grid = design.grid_of_equal_flops(law, AIM, SIZES, LENGTHS, Cost(), budget, cooldown)
  assert not found.after > grid
  counts = [sum(trunk.params == n for trunk in found.trunks) for n in SIZES]
  if cooldown is None:
    assert all(len(trunk.examples) == 1 for trunk in found.trunks)
  else:
    assert max(counts) <= design.SEEDS
    for trunk in found.trunks:  # the stable part of the longest run once, and a cooldown each
      examples = 0.7 * max(trunk.examples) + 0.3 * sum(trunk.examples)
      assert trunk.flops == pytest.approx(6 * trunk.params * examples)


@pytest.mark.slow
def test_the_expected_interval_is_that_of_fits_to_such_runs():
  """Fits to 60 draws of the designed runs spread as the design says, at the target and in the exponents."""
  law = assumed()
  found = design.choose(law, {'params': 1e7, 'examples': 1e7}, SIZES, LENGTHS, Cost(), 2e13, None)
  n, d = np.array([(trunk.params, trunk.examples[0]) for trunk in found.trunks]).T
  at, random, ends = {'params': np.array([1e7]), 'examples': np.array([1e7])}, np.random.default_rng(0), []
  for _ in range(60):
    y = loss(n, d) * np.exp(0.01 * random.standard_normal(len(n)))
    fit = estimate.fit('chinchilla', {'params': n, 'examples': d}, y, Objective('log_lsq'), exact=False)
    ends.append((np.log(fit.predict(at)[0]), fit.coefficients['alpha']))
  spread = np.std(ends, axis=0)
  assert np.exp(1.96 * spread[0]) - 1 == pytest.approx(found.after - 1, rel=0.35)
  low, high = found.coefficients['alpha']
  assert 1.96 * spread[1] == pytest.approx((high - low) / 2, rel=0.35)


def test_points_that_are_there_count():
  y = loss(N, D) * np.exp(0.01 * np.random.default_rng(0).standard_normal(len(N)))
  fit = estimate.fit('chinchilla', {'params': N, 'examples': D}, y, Objective('log_lsq'))
  law = design.of_fit(fit, np.arange(len(N)))
  assert law.sigma == pytest.approx(0.01, rel=0.5) and law.in_common == 0.5
  found = design.choose(law, AIM, SIZES, LENGTHS, Cost(), 1e12)
  assert found.after < found.before < design.choose(assumed(), AIM, SIZES, LENGTHS, Cost(), 1e12).before


def test_an_exponent_that_will_not_be_identified_is_named():
  """All runs of nearly one size say nothing of alpha, and the words say what would help."""
  law = design.assume(TRUE, CHINCHILLA, np.array([1e4, 2e4]), LENGTHS)
  found = design.choose(law, AIM, [1e4, 1.1e4], LENGTHS, Cost(), 1e12)
  assert any(words.startswith('with this sweep alpha will not be identified') and 'add runs such as N = ' in words
             for words in found.missing)
  assert not any('alpha' in words for words in design.choose(assumed(), AIM, SIZES, LENGTHS, Cost(), 1e14).missing)


def test_runs_of_one_trunk_are_worth_less_than_runs():
  law, slopes = assumed(), design._slopes(assumed(), [1e5] * 3, LENGTHS[:3])
  apart, together = design._worth(law, slopes, None), design._worth(law, slopes, 0.3)
  assert together[1, 1] < apart[1, 1]  # of the amplitude of N
  residuals = np.repeat(np.random.default_rng(0).standard_normal(40), 4)
  assert design._in_common(residuals, np.repeat(np.arange(40), 4)) > 0.9
  assert design._in_common(np.random.default_rng(0).standard_normal(160), np.repeat(np.arange(40), 4)) < 0.15


@pytest.mark.parametrize('text, words', [
    ('E=0.2,A=20,alpha=0.4,B=30,beta=0.35', 'sigma is the standard deviation'), ('E=0.2', 'alpha=..'),
    (TRUE + ',q=1', 'expected E=..'), ('E', '--assume=E: cannot read')])
def test_assumed_coefficients_that_do_not_fit(text, words):
  with pytest.raises(UserError, match=words):
    assumed(text)


def test_errors():
  with pytest.raises(UserError, match='the FLOPs of the cheapest run'):
    design.choose(assumed(), AIM, SIZES, LENGTHS, Cost(), 1e3)
  with pytest.raises(UserError, match='--within=params=5: expected params=LOW..HIGH'):
    design.ranges('params=5', (1, 2), (1, 2))
  with pytest.raises(UserError, match=r'params: expected low < high, got 6 \.\. 4'):
    design.ranges('params=6..4', (1, 2), (1, 2))
  with pytest.raises(UserError, match='depth: expected params and examples'):
    design.ranges('depth=1..2', (1, 2), (1, 2))
  with pytest.raises(UserError, match='expected a form in params and examples'):
    design.assume('c=1,a=1,sigma=1', written.form('c*N^-a', '', ['params']), SIZES, LENGTHS)
  sizes, lengths = design.ranges('N=10..1000', (1, 2), (5, 50))
  assert (sizes[0], sizes[-1], lengths[0], lengths[-1]) == pytest.approx((10, 1000, 5, 50))
