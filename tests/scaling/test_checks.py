"""Residuals: outliers, curvature, categories and lineages are found where they are, and not where they are not."""

import numpy as np
import pytest

from vit_jax.scaling import alike, analysis, bootstrap, checks, estimate
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 8), np.geomspace(1e8, 1e11, 6)))
LAW = 1.69 + 406.4 * N ** -0.34 + 410.7 * D ** -0.28
SIZE = np.unique(N, return_inverse=True)[1]


def noise(sigma, seed=0, n=48):
  return np.exp(sigma * np.random.default_rng(seed).standard_normal(n))


def fitted(y, objective='log_huber', **columns):
  return estimate.fit('chinchilla', columns or {'params': N, 'examples': D}, y, Objective(objective), exact=False)


def points(y, **of_rows):
  rows = [{'run': f'r{i}', **{key: values[i] for key, values in of_rows.items()}} for i in range(len(y))]
  names = [row['run'] for row in rows]
  return Points('loss', None, y, {'params': N, 'examples': D}, names, np.arange(len(y)), rows, {})


def test_diverged_runs_are_named_and_widen_no_interval_of_a_run():
  y = LAW * noise(0.01)
  clean = bootstrap.run(fitted(y), np.arange(48), 200)
  y[[3, 30]] *= [4, 1.4]
  law = analysis.analyse(points(y), analysis.Settings('chinchilla', replicates=200)).law
  assert law['outliers'] == ['r3', 'r30'] and law['diagnostics']['sigma'] < 0.015
  words, = (w for w in law['warnings'] if 'far off the law' in w)
  assert words.startswith('2 of 48 points are far off the law: r3 (+') and 'fits 48 points to 0.' in law['verdict']
  at = {'params': np.array([1e8]), 'examples': np.array([1e10])}
  wide = [np.ptp(boot.bands(at)[1]) for boot in (clean, bootstrap.run(fitted(y), np.arange(48), 200))]
  assert wide[1] < 2 * wide[0]


@pytest.mark.parametrize('seed', range(3))
def test_noise_alone_is_no_outlier_no_curvature_and_no_lineage(seed):
  fit = fitted(LAW * noise(0.01, seed))
  assert not fit.outliers.any() and not checks.curvature(fit, np.arange(48)).significant
  assert not checks.shared(fit, N).significant and not checks.depends(fit, ['a', 'b'] * 24).significant


def test_a_few_points_that_the_law_goes_through_leave_no_outlier():
  x = np.geomspace(1, 100, 6)
  fit = estimate.fit('zhai', {'x': x}, 1 + 3 / x ** 0.4 * noise(0.05, 1, 6))
  assert not fit.outliers.any()


@pytest.mark.parametrize('term, bend', [
    ('ln^2 params', 0.004 * np.log(N / 3e7) ** 2), ('ln^2 examples', 0.004 * np.log(D / 3e9) ** 2),
    ('ln params ln examples', 0.006 * np.log(N / 3e7) * np.log(D / 3e9))])
def test_curvature_is_found_and_named(term, bend):
  y = LAW * np.exp(bend) * noise(0.004)
  law = analysis.analyse(points(y), analysis.Settings('chinchilla', replicates=20)).law
  assert next(iter(law['lack_of_fit']['effects'])) == term
  assert law['lights']['calibrated']['light'] == 'red' and law['verdict'].startswith(f'the residuals curve with {term}')


def test_curvature_of_one_input():
  x = np.geomspace(1e3, 1e7, 30)
  fit = estimate.fit('power', {'x': x}, 5 * x ** -0.2 * np.exp(0.01 * np.log(x / 1e5) ** 2) * noise(0.01, 0, 30))
  assert checks.curvature(fit, np.arange(30)).significant


def test_lineages_that_no_column_tells_are_found_and_resampled_whole():
  branches = LAW * noise(0.01, 1, 8)[SIZE] * noise(0.002)
  clusters, words = alike.lineages(points(branches), fitted(branches))
  assert len(np.unique(clusters)) == len({*zip(clusters.tolist(), N.tolist())}) == 8
  assert 'the 48 points are resampled as 8 lineages' in words
  plain = LAW * noise(0.01)
  assert alike.lineages(points(plain), fitted(plain))[1] == ''
  declared = points(branches)
  declared.clusters[:] = SIZE
  assert alike.lineages(declared, fitted(branches))[1] == ''


def test_pooled_categories_are_named_and_turn_a_light_red_where_they_differ():
  kinds = np.tile(['c4', 'rpj'], 24)
  shifted = LAW * np.where(kinds == 'c4', 1, 1.05) * noise(0.005)
  law = analysis.analyse(points(shifted, corpus=kinds), analysis.Settings('chinchilla', replicates=20)).law
  assert law['lights']['calibrated']['light'] == 'red' and 'corpus (c4, rpj), whose residuals differ' in law['verdict']
  same = points(LAW * noise(0.005), corpus=kinds, name_of_size=[f'w{i}' for i in SIZE])
  law = analysis.analyse(same, analysis.Settings('chinchilla', replicates=20)).law
  note, = (n for n in law['notes'] if 'one law is fitted' in n)
  assert note.startswith('one law is fitted to 2 values of corpus (c4, rpj); --group=corpus')
  assert 'corpus' not in law['verdict']
  pooled = analysis.analyse(same, analysis.Settings('chinchilla', replicates=20, pool=('corpus',))).law
  assert not [n for n in pooled['notes'] if 'one law is fitted' in n]


def test_seeds_with_equal_rounded_losses():
  y = np.round(np.repeat(LAW[:24], 2), 2)
  both = points(y, seed=[0, 1] * 24)
  both.columns.update(params=np.repeat(N[:24], 2), examples=np.repeat(D[:24], 2))
  law = analysis.analyse(both, analysis.Settings('chinchilla', replicates=0)).law
  assert law['seed_noise'] == {'sets': 24, 'runs': 48, 'std_log': 0.0} and 'fits 48 points' in law['verdict']


def test_a_loss_that_rises_is_fitted_without_an_error():
  y = 0.1 * N ** 0.05 * D ** 0.05 * noise(0.01)
  law = analysis.analyse(points(y), analysis.Settings('chinchilla', replicates=50)).law
  assert law['lights']['identified']['light'] == 'red' and {'alpha', 'beta'} & set(law['not_identified'])
