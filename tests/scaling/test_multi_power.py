"""The multi-power law: its pieces are the sum over steps, and its derivatives are exact."""

import numpy as np
import pytest

from vit_jax.scaling import multi_power
from vit_jax.scaling.points import Points

TRUE = dict(L0=0.3, A=2.0, alpha=0.4, B=15.0, C=3.0, beta=0.6, gamma=0.5)
STEPS = 2000
SCHEDULES = {
    'cooldown': np.concatenate([np.full(1000, 0.01), np.linspace(0.01, 1e-5, 1000)]),
    'cosine': 0.005 * (1 + np.cos(np.pi * np.arange(STEPS) / STEPS)),
    'steps': np.repeat([0.01, 0.003, 0.001, 0.0003], STEPS // 4),
    'rising again': np.concatenate([np.linspace(0.01, 0.002, 1000), np.linspace(0.002, 0.008, 1000)]),
}


def annealed(rates, t=None):
  """What annealing has brought after t steps, as the paper writes it."""
  rates = rates[:t]
  since = np.cumsum(rates[::-1])[::-1][1:]
  x = TRUE['C'] * np.maximum(rates[1:], 1e-9 * rates.max()) ** -TRUE['gamma'] * since
  return TRUE['B'] * np.sum(-np.diff(rates) * (1 - (x + 1) ** -TRUE['beta']))


def losses(rates, warmup=50):
  """The losses after each step of a run, [n]."""
  area = np.cumsum(rates)
  brought = np.zeros(len(rates))
  for t in range(warmup + 1, len(rates) + 1):
    brought[t - 1] = annealed(rates[warmup - 1:], t - warmup + 1)
  return TRUE['L0'] + TRUE['A'] / area ** TRUE['alpha'] - brought


def curves(rates, at):
  """The points of one run at some steps."""
  names = ['run'] * len(at)
  y = np.array([TRUE['L0'] + TRUE['A'] / rates[:t].sum() ** TRUE['alpha'] - annealed(rates, t) for t in at])
  area = np.array([rates[:t].sum() for t in at])
  return multi_power.of(Points('loss', None, y, {'area': area, 'held': area}, names, np.zeros(len(at), int),
                               [{'run': 'run', '_rates': rates[:t]} for t in at], {}))


@pytest.mark.parametrize('name', SCHEDULES)
def test_pieces_are_the_sum_over_steps(name):
  rates = SCHEDULES[name]
  for t in (2, 3, 600, 1100, STEPS):
    fall, since, rate = multi_power.pieces(rates[:t])
    brought = TRUE['B'] * np.sum(fall * (1 - (TRUE['C'] * rate ** -TRUE['gamma'] * since + 1) ** -TRUE['beta']))
    exact = annealed(rates, t)
    assert brought == pytest.approx(exact, rel=0.01, abs=1e-9), t
    assert fall.sum() == pytest.approx(rates[0] - rates[t - 1])


@pytest.mark.parametrize('name', SCHEDULES)
def test_derivatives_are_those_of_differences(name):
  points, cls = curves(SCHEDULES[name], [300, 900, 1200, 1500, 1999])
  form = cls(points.columns, points.y)
  theta = np.array([[0.3, -1.0, 0.4, -1.5, 2.0, 0.6, 0.5], [0.1, 0.0, 1.2, 0.3, 5.0, 1.5, 0.0]])
  value, jacobian = form.model(theta, points.columns)
  for i in range(theta.shape[1]):
    step = 1e-6 * (np.arange(theta.shape[1]) == i)
    a, b = (form.model(theta + sign * step, points.columns)[0] for sign in (1, -1))
    np.testing.assert_allclose(jacobian[:, i], (a - b) / 2e-6, rtol=1e-5, atol=1e-7)
  assert value.shape == (2, 5)


@pytest.mark.parametrize('name', SCHEDULES)
def test_coefficients_are_those_of_the_paper(name):
  """Parameters that stand for the true coefficients give the true losses."""
  points, cls = curves(SCHEDULES[name], [300, 900, 1200, 1500, 1999])
  form = cls(points.columns, points.y)
  log_a = np.log(TRUE['A']) - TRUE['alpha'] * np.log(form.reference['area'])
  speed = np.log(TRUE['C'] * form.whole) - TRUE['gamma'] * np.log(form.peak)
  theta = np.array([[TRUE['L0'], log_a, TRUE['alpha'], np.log(TRUE['B'] * form.peak), speed, TRUE['beta'],
                     TRUE['gamma']]])
  np.testing.assert_allclose(form.natural(theta)[0], list(TRUE.values()), rtol=1e-9)
  np.testing.assert_allclose(form.model(theta, points.columns)[0][0], points.y, rtol=2e-3)
