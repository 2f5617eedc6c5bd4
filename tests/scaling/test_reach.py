"""Intervals that reach to where a broken power law leads, which nests the forms of one input."""

import dataclasses
import types

import numpy as np
import pytest

from vit_jax.scaling import analysis, bootstrap, estimate, select
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

X = np.repeat(np.geomspace(1e5, 1e8, 10), 3)
FAR = {'x': 1e8 * np.array([3.0, 10.0, 20.0])}


def power_offset(x):
  return 0.5 + 200 * x ** -0.4


def kinked(x):
  """The exponent halves around 1e7."""
  return 0.5 + 200 * x ** -0.4 * (1 + (x / 1e7) ** 4) ** 0.05


def slower(x):
  """The exponent falls steadily."""
  u = np.log(x / 3e6)
  return 2 * np.exp(-0.25 * u + 0.01 * u ** 2)


def analysed(truth, form, seed, refits, x=X):
  y = truth(x) * np.exp(0.015 * np.random.default_rng(seed).standard_normal(len(x)))
  names = [f'run {i}' for i in range(len(x))]
  points = Points('loss', 'examples', y, {'x': x}, names, np.arange(len(x)), [{'run': name} for name in names], {})
  return analysis.analyse(points, analysis.Settings(form, Objective(), refits))


def bands(law):
  """The law's band beyond the points, [2, m], and what it would be without a broken power law."""
  return [boot.bands(FAR)[0] for boot in (law.boot, dataclasses.replace(law.boot, broken=None))]


@pytest.mark.parametrize('truth, c0, c1', [
    (lambda x: 200 * x ** -0.4, 0.4, 0.0), (power_offset, 0.4, -0.4),
    (lambda x: 200 * (1 / x + 5e-8) ** 0.4, 0.4, -0.4), (lambda x: 3 * x ** 0.2, -0.2, 0.0),
    (lambda x: 9 * x ** -0.1 * (1 + x / 3e6) ** -0.3, 0.1, 0.3)])
def test_a_broken_power_law_nests_the_forms_of_one_input(truth, c0, c1):
  fit = estimate.fit('broken_power', {'x': X}, truth(X))
  np.testing.assert_allclose(fit.predict(FAR), truth(FAR['x']), rtol=1e-6)
  np.testing.assert_allclose([fit.coefficients[name] for name in ('c0', 'c1')], [c0, c1], atol=1e-6)


@pytest.mark.parametrize('truth, form, refits', [(kinked, 'auto', 40), (slower, 'power_offset', 100)])
def test_a_bend_that_the_form_absorbs_is_in_the_interval(truth, form, refits):
  held = np.zeros(2)
  for seed in range(6):
    for k, (low, high) in enumerate(bands(analysed(truth, form, seed, refits))):
      held[k] += np.mean((low <= truth(FAR['x'])) & (truth(FAR['x']) <= high))
  assert held[0] >= 4.5 and held[0] > held[1] + 0.5, held  # of six draws


def test_where_the_form_is_right_few_intervals_are_longer_and_on_one_side():
  laws = [analysed(power_offset, 'power_offset', seed, 100) for seed in range(8)]
  for law in laws:
    reaching, own = bands(law)
    moved = np.abs(np.log(reaching / own)) > 1e-9
    assert not np.any(moved.all(0)) and np.all(reaching[0] <= own[0] + 1e-9) and np.all(reaching[1] >= own[1] - 1e-9)
    assert moved.any() <= (law.boot.broken is not None)
    assert any('a power law with a break' in note for note in law.law['notes']) == (law.boot.broken is not None)
  assert sum(law.boot.broken.support for law in laws if law.boot.broken) <= 4


class Leads:
  """Refits whose predictions are given."""

  def __init__(self, value):
    self.value = value

  def predictions(self, columns):
    return np.full((9, len(columns['x'])), self.value)


def test_an_interval_reaches_to_that_of_the_broken_power_law_and_no_farther():
  values, middle, factor = np.array([[0.9] * 3, [1.0] * 3, [1.1] * 3]), np.ones(3), np.array([0.5, 1.0, 2.0])
  moved = bootstrap.Broken(Leads(0.5), 1.0).reached(FAR, values, middle, factor)
  np.testing.assert_allclose(moved[:, :2], values[:, :2])  # not among the points
  np.testing.assert_allclose(np.quantile(moved[:2, 2], 0.05), 0.5, rtol=0.05)
  np.testing.assert_allclose(moved[1:, 2], values[1:, 2])
  near = bootstrap.Broken(Leads(0.99), 1.0).reached(FAR, values, middle, np.full(3, 20.0))
  np.testing.assert_allclose(near, values)  # inside already
  half = bootstrap.Broken(Leads(0.5), 0.5).reached(FAR, values, middle, factor)
  own, whole = (np.log(some[0, 2]) for some in (values, moved))
  np.testing.assert_allclose(np.log(half[0, 2]), -np.sqrt(own * whole))


@pytest.mark.parametrize('ahead, support', [(-2.5, 0), (-2.0, 0), (-1.0, 0.5), (-0.5, 0.75), (0.0, 1), (9.0, 1)])
@pytest.mark.parametrize('objective', ['log_lsq', 'log_huber'])
def test_support_falls_with_the_distance_in_akaikes_criterion(ahead, support, objective):
  points = analysed(power_offset, 'power', 0, 0).points
  objective = Objective(objective, delta=1e-9)  # Laplace's, so losses are proportional to distances
  ratio = np.exp(-(ahead + 2 * 3) / len(X) / 2)  # twice the gain is 2 n ln(1 / ratio) for both
  law = lambda distance, size: types.SimpleNamespace(
      predict=lambda _: points.y * np.exp(distance), objective=objective, theta=np.zeros(size),
      outliers=np.zeros(len(X), bool))
  found = select._support(law(0.02, 2), law(0.02 * ratio, 5), points, np.ones(len(X)))
  np.testing.assert_allclose(found, support, atol=0.011)


def test_only_many_sizes_that_speak_against_the_form_lengthen_an_interval():
  many, few = (np.repeat(np.geomspace(1e5, 1e8, sizes), 4) for sizes in (10, 7))
  assert analysed(kinked, 'power', 0, 20, many).boot.broken is not None
  assert analysed(kinked, 'power', 0, 20, few).boot.broken is None
  straight = [analysed(lambda x: 9 * x ** -0.2, 'power', seed, 20, many).boot.broken for seed in range(6)]
  assert sum(broken.support for broken in straight if broken) <= 3
  plateaus = lambda x: 0.2 + 2 / (1 + (x / 3e6) ** 1.5)  # two bends: m4 and zhai have these
  assert analysed(plateaus, 'zhai', 0, 20).boot.broken is None
