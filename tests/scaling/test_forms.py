"""Forms: derivatives against finite differences, and values against the formulas of the sources."""

import numpy as np
import pytest

from vit_jax.scaling.estimate import FORMS
from vit_jax.scaling.forms_special import M4, DataConstrained

_N = np.repeat(np.geomspace(1e6, 1e9, 8), 7)
_D = np.tile(np.geomspace(1e8, 1e11, 7), 8)
_COLUMNS = {'params': _N, 'examples': _D, 'unique_examples': np.minimum(_D, 3e9), 'x': _N * _D}
_Y = 1.69 + 406.4 * _N ** -0.34 + 410.7 * _D ** -0.28

# The formula of each source, with coefficients by name.
_FORMULAS = {
    'power': lambda c, x, N, D: c['b'] * x ** c['c'],
    'power_offset': lambda c, x, N, D: c['e'] + c['b'] * x ** c['c'],
    'shifted_power': lambda c, x, N, D: c['b'] * (1 / x + c['g']) ** c['c'],
    'zhai': lambda c, x, N, D: c['a'] * (x + c['d']) ** -c['b'] + c['c'],
    'chinchilla': lambda c, x, N, D: c['E'] + c['A'] / N ** c['alpha'] + c['B'] / D ** c['beta'],
    'chinchilla_tied': lambda c, x, N, D: c['E'] + c['A'] / N ** c['alpha'] + c['B'] / D ** c['alpha'],
    'overtrain': lambda c, x, N, D: c['E'] + c['a'] * N ** c['b'] + c['c'] * 6 ** (c['b'] / 2) * (D / N * N) ** c['b']}


def _some_theta(form, count=20):
  """Starts, moved away from the bounds."""
  theta = form.starts(_COLUMNS, _Y, 1 / _Y ** 2)
  theta = theta[np.random.default_rng(0).choice(len(theta), min(count, len(theta)), replace=False)]
  margin = np.minimum(1e-2, 0.01 * (form.upper - form.lower))
  return np.clip(theta, form.lower + margin, form.upper - margin)


@pytest.mark.parametrize('name', FORMS)
def test_derivatives_are_exact(name):
  form = FORMS[name](_COLUMNS, _Y)
  theta = _some_theta(form)
  value, jacobian = form.model(theta, _COLUMNS)
  for i in range(theta.shape[1]):
    step = 1e-6 * np.maximum(1, np.abs(theta[:, i:i + 1])) * (np.arange(theta.shape[1]) == i)
    difference = (form.model(theta + step, _COLUMNS)[0] - form.model(theta - step, _COLUMNS)[0]) / (
        2 * step[:, i:i + 1])
    scale = np.abs(jacobian[:, i]).max(1, keepdims=True)
    rounding = 1e-14 * np.abs(value) / step[:, i:i + 1]
    assert (np.abs(difference - jacobian[:, i]) <= 1e-5 * scale + rounding).all(), form.parameters[i]


@pytest.mark.parametrize('name', _FORMULAS)
def test_coefficients_are_those_of_the_formula(name):
  form = FORMS[name](_COLUMNS, _Y)
  theta = _some_theta(form)
  for row, value in zip(form.natural(theta), form.model(theta, _COLUMNS)[0]):
    expected = _FORMULAS[name](dict(zip(form.names, row)), _COLUMNS['x'], _N, _D)
    np.testing.assert_allclose(value, np.broadcast_to(expected, value.shape), rtol=1e-9)


def test_m4_solves_its_equation():
  form = M4(_COLUMNS, _Y)
  theta = _some_theta(form, 40)
  for row, y in zip(form.natural(theta), form.model(theta, _COLUMNS)[0]):
    e, e0, a, b, c = row
    inside = (y > e * (1 + 1e-6)) & (y < e0 * (1 - 1e-6))  # closer to an end the difference loses all its digits
    left = np.log(y[inside] - e) - a * np.log(e0 - y[inside])
    np.testing.assert_allclose(left, np.log(b) + c * np.log(_COLUMNS['x'][inside]), atol=1e-6)


def test_data_constrained_matches_the_paper():
  """Muennighoff et al. 2023, equations 5 and 6."""
  form = DataConstrained(_COLUMNS, _Y)
  theta = np.array([[1.7, np.log(0.5), np.log(0.7), 0.35, 0.37, 5.3, 15.4]])
  E, A, alpha, B, beta, repeat_n, repeat_d = form.natural(theta)[0]
  U = _COLUMNS['unique_examples']
  G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
  optimal = G * (U * G) ** (beta / alpha)  # the N whose optimal D is U
  U_N = np.minimum(optimal, _N)
  R_N, R_D = _N / U_N - 1, _D / U - 1
  assert (R_D > 1).any() and (R_N > 1).any()
  size = U_N + U_N * repeat_n * (1 - np.exp(-R_N / repeat_n))
  data = U + U * repeat_d * (1 - np.exp(-R_D / repeat_d))
  np.testing.assert_allclose(form.model(theta, _COLUMNS)[0][0], E + A / size ** alpha + B / data ** beta, rtol=1e-10)


@pytest.mark.parametrize('name', FORMS)
def test_starts_are_inside_the_bounds_and_near_the_data(name):
  y = 0.4 + 40 * _COLUMNS['x'] ** -0.1 if 'x' in FORMS[name].inputs else _Y
  form = FORMS[name](_COLUMNS, y)
  theta = form.starts(_COLUMNS, y, 1 / y ** 2)
  assert np.isfinite(theta).all() and (theta >= form.lower).all() and (theta <= form.upper).all()
  with np.errstate(all='ignore'):
    error = np.abs(np.log(form.model(theta, _COLUMNS)[0] / y)).max(1)
  assert np.nanmin(error) < 0.15
