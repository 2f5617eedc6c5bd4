"""Shared coefficients: one fit of several groups, the test of which differ, and what is refused."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy import optimize

from vit_jax.errors import UserError
from vit_jax.scaling import analysis, estimate, law_page, shared, terminal, written
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e11, 4)))
LSQ = Objective('log_lsq')
CHINCHILLA = estimate.form_class('chinchilla')
TRUE = {'a': (1.7, 400, 0.34), 'b': (2.0, 500, 0.34), 'c': (14.0, 3000, 0.34)}  # E, A, alpha; the last in other units


def groups(true=TRUE, sigma=0.01, seed=0):
  random = np.random.default_rng(seed)
  out = {}
  for name, (e, a, alpha) in true.items():
    y = (e + a * N ** -alpha + 410 * D ** -0.28) * np.exp(sigma * random.standard_normal(len(N)))
    out[name] = Points('loss', None, y, {'params': N, 'examples': D}, [f'{name}{i}' for i in range(len(N))],
                       np.arange(len(N)), [{'run': f'{name}{i}'} for i in range(len(N))], {})
  return out


def together(found, share, cls=CHINCHILLA, replicates=0):
  return shared.fit(found, {name: np.ones(len(N)) for name in found}, cls, share, LSQ, replicates, 0)


@pytest.mark.parametrize('cls', [CHINCHILLA, written.form('E + A/N^alpha + B/D^beta', '', ['params', 'examples'])],
                         ids=['built-in', 'written'])
def test_the_joint_fit_is_that_of_an_independent_optimizer(cls):
  found = groups()
  out = together(found, ('alpha', 'B', 'beta'), cls)

  def residuals(v):
    return np.concatenate([np.log(v[g] + np.exp(v[3 + g]) * N ** -v[6] + np.exp(v[7]) * D ** -v[8]) - np.log(points.y)
                           for g, points in enumerate(found.values())])

  best = optimize.least_squares(residuals, [1.7, 2, 14, *np.log([400, 500, 3000]), 0.34, np.log(410), 0.28],
                                x_scale='jac', xtol=1e-15, ftol=1e-15, gtol=1e-15)
  assert out.summary['objective'] == pytest.approx(best.cost, rel=1e-6)
  assert out.summary['coefficients']['alpha']['value'] == pytest.approx(best.x[6], rel=1e-4)
  for g, (fit, _) in enumerate(out.fits.values()):
    assert fit.coefficients['E'] == pytest.approx(best.x[g], rel=1e-4)
    assert fit.coefficients['A'] == pytest.approx(np.exp(best.x[3 + g]), rel=1e-3)


def test_with_nothing_shared_each_group_has_its_own_law():
  found = groups()
  out = together(found, ())
  for name, points in found.items():
    alone = estimate.fit('chinchilla', points.columns, points.y, LSQ)
    assert out.fits[name][0].value == pytest.approx(alone.value, rel=1e-6)
    assert out.fits[name][0].coefficients['beta'] == pytest.approx(alone.coefficients['beta'], rel=1e-4)


def test_which_coefficients_differ():
  p = {test['name']: test['p'] for test in together(groups(), ('alpha', 'beta')).summary['tests']}
  assert p['E'] < 1e-9 and p['A'] < 1e-9 and min(p['alpha'], p['beta'], p['B']) > 0.02
  found = together(groups(TRUE | {'b': (2.0, 2000, 0.42)}), ('alpha', 'beta')).summary
  p = {test['name']: test['p'] for test in found['tests']}
  assert p['alpha'] < 1e-4 and p['beta'] > 0.02 and 'alpha is shared, but differs' in found['warnings'][0]
  separate = {test['name']: test for test in together(groups(), ('E',)).summary['tests']}
  assert separate['A']['p'] is None and separate['A']['why'] == 'depends on alpha, which is separate'


def test_the_laws_of_the_groups_and_what_is_printed():
  found = groups()
  settings = analysis.Settings('chinchilla', LSQ, 100, share=('alpha', 'beta'), holdout='largest:2')
  out = analysis.fit_together(found, settings)
  laws = analysis.analyse_groups(found, settings, out)
  assert len({law.law['coefficients']['alpha'] for law in laws.values()}) == 1
  assert len({tuple(law.law['ci95']['alpha']) for law in laws.values()}) == 1
  assert 'alpha and beta shared' in laws['a'].law['notes'][-1] and laws['a'].law['holdout']['n'] == 2
  width = lambda interval: interval[1] - interval[0]
  alone = analysis.analyse(found['a'], analysis.Settings('chinchilla', LSQ, 100, holdout='largest:2'))
  assert width(laws['a'].law['ci95']['alpha']) < width(alone.law['ci95']['alpha'])
  row = analysis.multipliers(laws, [('a', 'b')])[0]
  assert row['ci95'][0] <= row['multiplier'] <= row['ci95'][1]
  text = io.StringIO()
  terminal.show_shared(Console(file=text, width=100), out.summary)
  for words in ('separate', 'E (p = ', 'differ between the groups'):
    assert words in text.getvalue()
  assert set(law_page.law_json(laws, [], '')['groups']) == set(TRUE)


@pytest.mark.parametrize('change, words', [
    ({'share': ('alpha', 'gamma')}, '--share=alpha,gamma: gamma is no coefficient'),
    ({'share': ('alpha',), 'separate': ('E',)}, 'expected one of the two'),
    ({'share': ('A',)}, 'A means the same in all groups only where alpha does'),
    ({'share': ('alpha',), 'form': 'auto'}, 'expected one form for all groups')])
def test_refused(change, words):
  with pytest.raises(UserError, match=words):
    analysis.fit_together(groups(), analysis.Settings(**{'form': 'chinchilla', **change}))


def test_one_group_is_refused():
  with pytest.raises(UserError, match='two groups or more, got a'):
    analysis.fit_together({'a': groups()['a']}, analysis.Settings('chinchilla', separate=('E', 'A')))
