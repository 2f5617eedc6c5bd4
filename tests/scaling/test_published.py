"""Published points, and what published or independent fits of them give (published/README.md: sources, licences)."""

import json
from pathlib import Path

import numpy as np
import pytest

from vit_jax.scaling import analysis, estimate, frontier, holdout
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import column, load

PUBLISHED = Path(__file__).with_name('published')
REPEATED = '1.07e+09'  # the language model whose rows the table has four times


@pytest.fixture(scope='module')
def expected():
  return json.loads((PUBLISHED / 'expected.json').read_text())


@pytest.fixture(scope='module')
def curves():
  points = load([PUBLISHED / 'learning_curves.csv'], 'Loss', 'Seen Examples')
  return analysis.split_groups(points.take(np.array(column(points, 'Model')) != REPEATED), 'Model')


def test_exponents_of_optimal_pairs(expected):
  tables = expected['optimal_pairs']
  points = load([PUBLISHED / 'optimal_pairs.csv'], 'n', 'flops')
  keys = np.array([f'{row["source"]}|{row["config"]}' for row in points.rows])
  assert len(tables['expected']) == 15
  for key, values in tables['expected'].items():
    group = points.take(keys == key)
    sigma = np.array(column(group, 'n_star_std'), float)
    ours = frontier.power_law(group.columns['x'], group.y).exponent
    weighted = frontier.power_law(group.columns['x'], group.y, sigma).exponent
    assert ours == pytest.approx(values['ols_exponent'], abs=tables['tolerance'])
    assert weighted == pytest.approx(values['wls_exponent'], abs=tables['tolerance'])
    fit = estimate.fit('power', group.columns, group.y, Objective('log_lsq'), sigma ** -2 / np.mean(sigma ** -2))
    assert fit.coefficients['c'] == pytest.approx(values['wls_exponent'], abs=tables['tolerance'])


def test_over_training_predictions(expected):
  tables = expected['over_training']
  names = {'params': 'N', 'examples': 'D', 'loss': 'loss_c4_val'}
  points = load([PUBLISHED / 'over_training.csv'], columns=names, need=['params', 'examples'])
  multiple = np.round(points.columns['examples'] / points.columns['params']).astype(int)
  model = np.array([row['model'] for row in points.rows])
  small = ~np.char.startswith(model, 'open_lm')
  fitted = small & (multiple == 20) | np.char.startswith(model, 'd=96') & (multiple == 320)
  for key, error in tables['expected'].items():
    data, rest = key.split(': ')
    name, m = rest.split(' at M=')
    here = np.array([row['dataset'] for row in points.rows]) == data
    train, test = points.take(here & fitted), points.take(here & (model == name) & (multiple == int(m)))
    assert (len(train), len(test)) == (5, 1)
    fit = estimate.fit('overtrain', train.columns, train.y, Objective('lsq'))
    assert abs(fit.predict(test.columns)[0] / test.y[0] - 1) == pytest.approx(error, abs=tables['tolerance'])


def test_learning_curves_with_m1(expected, curves):
  tables = expected['learning_curves']
  for key, rmse in tables['expected'].items():
    points = curves[key]
    held = holdout.mask(points, 'column:Training')
    law = analysis.analyse(points, analysis.Settings('power', Objective('log_lsq'), 0, holdout='column:Training')).law
    assert held.sum() == law['holdout']['n'] == 1
    assert law['holdout']['rmsle'] == pytest.approx(rmse, abs=tables['tolerance'])


@pytest.mark.parametrize('objective', ['log_lsq', 'log_huber'])
def test_the_automatic_choice_is_near_the_best_published(expected, curves, objective):
  for key, published in expected['learning_curves']['m1_to_m4'].items():
    settings = analysis.Settings('auto', Objective(objective), 0, holdout='column:Training')
    law = analysis.analyse(curves[key], settings).law
    assert law['holdout']['rmsle'] < min(published) + 0.01, (key, law['form'])


def test_exact_duplicates_of_the_published_curves_are_dropped():
  points = load([PUBLISHED / 'learning_curves.csv'], 'Loss', 'Seen Examples')
  repeated = [row for row in points.rows if row['Model'] == REPEATED]
  assert (len(points), len(repeated), len(points.dropped)) == (53 + 21, 21, 3 * 21)
  assert {why for _, why in points.dropped} == {'exact duplicate of another row'}
