"""Fits to published points against independent fits of the same points (../shared/data; skipped if it is missing)."""

import json
from pathlib import Path

import numpy as np
import pytest

from vit_jax.scaling import analysis, estimate, frontier, holdout
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import column, load

FITS = Path(__file__).parents[3] / 'shared' / 'data' / 'fits'
pytestmark = pytest.mark.skipif(not FITS.is_dir(), reason='the published points (../shared/data/fits) are not there')
# {name in expected.json: name in the table}
CURVES = {'NMT 6 Enc, 6 Dec': '6 Enc, 6 Dec', 'Decoder only': 'Dec-only', 'TE-LSTM': 'TEnc-LSTM'}


@pytest.fixture(scope='module')
def expected():
  return json.loads((FITS / 'expected.json').read_text())


@pytest.fixture(scope='module')
def curves():
  points = load([FITS / 'learning_curves_language.csv'], 'Loss', 'Seen Examples')
  nmt = points.take(np.array(column(points, 'Domain')) == 'NMT')
  return analysis.split_groups(nmt, 'Model')


def test_exponents_of_optimal_pairs(expected):
  tables = expected['porian_optimal_pairs.csv']
  points = load([FITS / 'porian_optimal_pairs.csv'], 'n', 'flops')
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
  tables = expected['gadre_overtraining.csv']
  names = {'params': 'N', 'examples': 'D', 'loss': 'loss_c4_val'}
  points = load([FITS / 'gadre_overtraining.csv'], columns=names, need=['params', 'examples'])
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
  tables = expected['learning_curves_language.csv']
  for key, rmse in tables['expected'].items():
    points = curves[CURVES.get(key, key)]
    held = holdout.mask(points, 'column:Training')
    law = analysis.analyse(points, analysis.Settings('power', Objective('log_lsq'), 0, holdout='column:Training')).law
    assert held.sum() == law['holdout']['n'] == 1
    assert law['holdout']['rmsle'] == pytest.approx(rmse, abs=tables['tolerance'])


@pytest.mark.parametrize('objective', ['log_lsq', 'log_huber'])
def test_the_automatic_choice_is_near_the_best_published(expected, curves, objective):
  for key, published in expected['learning_curves_language.csv']['published_rmse_M1_to_M4'].items():
    settings = analysis.Settings('auto', Objective(objective), 0, holdout='column:Training')
    law = analysis.analyse(curves[CURVES.get(key, key)], settings).law
    assert law['holdout']['rmsle'] < min(published) + 0.01, (key, law['form'])


def test_exact_duplicates_of_the_published_curves_are_dropped():
  points = load([FITS / 'learning_curves_language.csv'], 'Loss', 'Seen Examples')
  assert len(points) + len(points.dropped) == 1399
  assert {why for _, why in points.dropped} == {'exact duplicate of another row'}
