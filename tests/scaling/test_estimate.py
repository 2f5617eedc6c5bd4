"""Fits: exact without noise, the global optimum, and error messages."""

import numpy as np
import pytest
from scipy import optimize

from vit_jax.errors import UserError
from vit_jax.scaling import estimate
from vit_jax.scaling.minimize import Objective, score

OBJECTIVES = [Objective('log_huber'), Objective('log_lsq'), Objective('lsq')]
N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e8, 1e11, 7)))
COLUMNS = {'params': N, 'examples': D, 'unique_examples': np.minimum(D, 3e9)}
TRUE = {'E': 1.69, 'A': 406.4, 'alpha': 0.34, 'B': 410.7, 'beta': 0.28}
LOSS = TRUE['E'] + TRUE['A'] * N ** -TRUE['alpha'] + TRUE['B'] * D ** -TRUE['beta']
X = np.geomspace(1e3, 1e8, 20)


def noisy(sigma=0.02, seed=0):
  return LOSS * np.exp(sigma * np.random.default_rng(seed).standard_normal(len(LOSS)))


@pytest.mark.parametrize('objective', OBJECTIVES, ids=lambda o: o.name)
def test_chinchilla_without_noise_to_1e_6(objective):
  fit = estimate.fit('chinchilla', COLUMNS, LOSS, objective)
  for name, value in TRUE.items():
    assert fit.coefficients[name] == pytest.approx(value, rel=1e-6), name
  assert fit.gradient < 1e-6 and not fit.at_bound


@pytest.mark.parametrize('units', [1e-6, 1, 1e6])
def test_units_do_not_matter(units):
  """The start grid has no scale of its own: N in millions or in single parameters gives the same fit."""
  fit = estimate.fit('chinchilla', {'params': N * units, 'examples': D * units}, LOSS)
  assert fit.coefficients['alpha'] == pytest.approx(TRUE['alpha'], rel=1e-6)
  assert fit.coefficients['beta'] == pytest.approx(TRUE['beta'], rel=1e-6)


@pytest.mark.parametrize('name, true, value', [
    ('power', {'b': 12.0, 'c': -0.3}, lambda b, c: b * X ** c),
    ('power', {'b': 0.02, 'c': 0.5}, lambda b, c: b * X ** c),
    ('power_offset', {'e': 0.2, 'b': 12.0, 'c': -0.3}, lambda e, b, c: e + b * X ** c),
    ('shifted_power', {'b': 12.0, 'c': 0.3, 'g': 1e-6}, lambda b, c, g: b * (1 / X + g) ** c),
    ('zhai', {'a': 12.0, 'b': 0.3, 'c': 0.2, 'd': 5e3}, lambda a, b, c, d: a * (X + d) ** -b + c)])
def test_forms_of_one_input_without_noise(name, true, value):
  fit = estimate.fit(name, {'x': X}, value(**true), Objective('log_lsq'))
  for key, expected in true.items():
    assert fit.coefficients[key] == pytest.approx(expected, rel=1e-5), key


def test_m4_without_noise():
  x, (e, e0, a, b, c) = np.geomspace(1, 1e6, 25), (0.2, 2.3, 0.8, 3.0, -0.4)
  y = np.array([optimize.brentq(lambda y, v=v: np.log(y - e) - a * np.log(e0 - y) - np.log(b * v ** c), e + 1e-12,
                                e0 - 1e-12, xtol=1e-15) for v in x])
  fit = estimate.fit('m4', {'x': x}, y, Objective('log_lsq'))
  for name, value in zip(('e', 'e0', 'a', 'b', 'c'), (e, e0, a, b, c)):
    assert fit.coefficients[name] == pytest.approx(value, rel=1e-4), name


def test_overtrain_and_tied_are_one_law():
  y = noisy()
  tied, over = (estimate.fit(name, COLUMNS, y, Objective('log_lsq')) for name in ('chinchilla_tied', 'overtrain'))
  np.testing.assert_allclose(tied.predict(COLUMNS), over.predict(COLUMNS), rtol=1e-7)
  assert over.coefficients['b'] == pytest.approx(-tied.coefficients['alpha'], rel=1e-5)


def test_data_constrained_finds_the_value_of_repetition():
  true = np.array([[1.7, np.log(0.5), np.log(0.7), 0.35, 0.37, 5.3, 15.4]])
  sizes, lengths, unique = (a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 7),
                                                           [1e9, 1e10, 1e11]))
  columns = {'params': sizes, 'examples': lengths, 'unique_examples': unique}
  y = estimate.FORMS['data_constrained'](columns, np.ones(1)).model(true, columns)[0][0]
  fit = estimate.fit('data_constrained', columns, y, Objective('log_lsq'))
  assert fit.coefficients['R_D*'] == pytest.approx(15.4, rel=1e-3)
  assert fit.coefficients['alpha'] == pytest.approx(0.35, rel=1e-3)


@pytest.mark.parametrize('objective', OBJECTIVES, ids=lambda o: o.name)
def test_no_other_optimizer_finds_a_lower_minimum(objective):
  y = noisy(0.05)
  fit = estimate.fit('chinchilla', COLUMNS, y, objective)
  total = lambda theta: float(score(fit.form, fit.columns, y, objective, theta[None]).sum())
  bounds = list(zip(fit.form.lower, fit.form.upper))
  random = np.random.default_rng(0)
  for start in fit.start_theta[random.choice(len(fit.start_theta), 8, replace=False)]:
    other = optimize.minimize(total, start, method='L-BFGS-B', bounds=bounds, options={'maxiter': 2000})
    assert other.fun >= fit.value * (1 - 1e-7)
  polished = optimize.minimize(total, fit.theta, method='Nelder-Mead', options={'xatol': 1e-10, 'fatol': 1e-16})
  assert polished.fun >= fit.value * (1 - 1e-7)


def test_objective_is_summed_not_averaged():
  y = noisy()
  twice = {name: np.tile(values, 2) for name, values in COLUMNS.items()}
  once = estimate.fit('chinchilla', COLUMNS, y)
  assert estimate.fit('chinchilla', twice, np.tile(y, 2)).value == pytest.approx(2 * once.value, rel=1e-6)


def test_log_huber_matches_hoffmann_et_al():
  objective = Objective('log_huber', 1e-3)
  r = np.array([-0.5, -1e-4, 0, 1e-3, 0.02])
  expected = [1e-3 * (0.5 - 5e-4), 0.5e-8, 0, 0.5e-6, 1e-3 * (0.02 - 5e-4)]
  np.testing.assert_allclose(objective.rho(r), expected, rtol=1e-12)


def test_log_huber_resists_an_outlier():
  y = noisy(0.002)
  y[10] *= 1.5
  robust, squares = (estimate.fit('chinchilla', COLUMNS, y, Objective(name)) for name in ('log_huber', 'log_lsq'))
  off = [abs(fit.coefficients['alpha'] - TRUE['alpha']) for fit in (robust, squares)]
  assert off[0] < 0.02 < off[1]


def test_weights_count_like_repeated_points():
  y, weights = noisy(), np.ones(len(LOSS))
  weights[:10] = 2
  index = np.concatenate([np.arange(len(y)), np.arange(10)])
  weighted = estimate.fit('chinchilla', COLUMNS, y, Objective('log_lsq'), weights)
  repeated = estimate.fit('chinchilla', {k: v[index] for k, v in COLUMNS.items()}, y[index], Objective('log_lsq'))
  np.testing.assert_allclose(weighted.predict(COLUMNS), repeated.predict(COLUMNS), rtol=1e-6)


def test_a_curve_that_bends_down_warns_of_no_offset():
  bent = estimate.fit('power_offset', {'x': X}, 3 * X ** (-0.3 - 0.01 * np.log(X / X[0])), Objective('log_lsq'))
  assert bent.coefficients['e'] == 0 and bent.at_bound == ('e',)
  assert any('no irreducible part' in warning for warning in bent.warnings)


def test_a_missing_term_is_named():
  y = (1.69 + 410.7 * D ** -0.28) * (N / N[0]) ** 0.001  # a larger model is never better
  fit = estimate.fit('chinchilla', COLUMNS, y, Objective('log_lsq'))
  assert set(fit.at_bound) & {'A', 'alpha'}
  assert any('the data show no sign of it' in warning for warning in fit.warnings)


@pytest.mark.parametrize('objective', OBJECTIVES, ids=lambda o: o.name)
def test_quick_fits_predict_like_exact_ones(objective):
  y, further = noisy(), {'params': N * 10, 'examples': D * 10}
  exact, quick = (estimate.fit('chinchilla', COLUMNS, y, objective, exact=exact) for exact in (True, False))
  np.testing.assert_allclose(quick.predict(further), exact.predict(further), rtol=1e-3)


def test_too_few_points_name_the_number():
  with pytest.raises(UserError, match='needs at least 6 points; there are 5'):
    estimate.fit('chinchilla', {k: v[:5] for k, v in COLUMNS.items()}, LOSS[:5])


def test_a_missing_column_is_named():
  with pytest.raises(UserError, match="needs the column 'examples'"):
    estimate.fit('chinchilla', {'params': N}, LOSS)


def test_an_input_that_does_not_vary_is_named():
  with pytest.raises(UserError, match='params is 1e.06 in all 56 points'):
    estimate.fit('chinchilla', {**COLUMNS, 'params': np.full(len(N), 1e6)}, LOSS)


def test_misspelled_names_suggest_the_nearest():
  with pytest.raises(UserError, match="did you mean 'chinchilla'"):
    estimate.fit('chinchila', COLUMNS, LOSS)
  with pytest.raises(UserError, match="did you mean 'log_huber'"):
    estimate.fit('chinchilla', COLUMNS, LOSS, Objective('log_hubber'))


def test_a_fit_without_convergence_is_refused(monkeypatch):
  stopped = estimate.minimize
  monkeypatch.setattr(estimate, 'minimize', lambda *args, **_: stopped(*args, iterations=1))
  with pytest.raises(UserError, match='no minimum found'):
    estimate.fit('chinchilla', COLUMNS, noisy(0.05))


def test_of_lines_that_are_alike_in_absolute_residuals_that_of_least_squares_is_taken():
  """The runs of experiments/digits_law: log-Huber's loss has two minima whose values are equal to rounding."""
  x = np.repeat([60.0, 120.0, 240.0, 480.0], 4)
  y = np.array([1.2787, 1.6197, 1.3804, 1.3504, 0.8584, 1.0768, 1.0912, 0.8375, 0.5292, 0.6931, 0.6161, 0.5575, 0.2930,
                0.3831, 0.2931, 0.3999])
  random = np.random.default_rng(0)
  for order in [np.arange(16), *(random.permutation(16) for _ in range(4))]:
    fit = estimate.fit('power', {'x': x[order]}, y[order], Objective('log_huber', 1e-3))
    assert fit.coefficients['c'] == pytest.approx(-0.652, abs=2e-3)
