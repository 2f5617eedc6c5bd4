"""Targets and chained laws: values, intervals through both laws, and errors."""

import numpy as np
import pytest

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.scaling import analysis, chain, target, terminal
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points, load

N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e9, 5), np.geomspace(1e8, 1e11, 4)))
LINK = 'error = lo + (hi-lo)*sigmoid(k*(loss-m))'
FAR = target.parse('N=1e10,D=1e12')
loss_at = lambda n, d: 1.7 + 400 * n ** -0.34 + 410 * d ** -0.28
error_at = lambda loss: 0.05 + 0.6 / (1 + np.exp(-2 * (loss - 2.5)))


def first(sigma=0.0, replicates=0, holdout=None, seed=0):
  random = np.random.default_rng(seed)
  noise = lambda: np.exp(sigma * random.standard_normal(len(N)))
  loss = loss_at(N, D) * noise()
  error = error_at(loss) * noise()
  points = Points('loss', None, loss, {'params': N, 'examples': D}, [f'r{i}' for i in range(len(N))], np.arange(len(N)),
                  [{'run': f'r{i}', 'error': e} for i, e in enumerate(error)], {})
  return analysis.analyse(points, analysis.Settings('chinchilla', Objective('log_lsq'), replicates, holdout=holdout,
                                                    budgets=(1e22,)))


def test_without_noise_both_laws_are_exact():
  law = first()
  assert target.predict(law, FAR)[0]['predicted'] == pytest.approx(loss_at(1e10, 1e12), rel=1e-5)
  link = chain.analyse(law, LINK, '', FAR)
  row, = link.summary['targets']
  assert row['predicted'] == pytest.approx(error_at(loss_at(1e10, 1e12)), rel=1e-4) and row['ci95'] is None
  assert row['metric'] == 'error' and row['through'] == pytest.approx(loss_at(1e10, 1e12), rel=1e-5)
  best, = link.summary['compute_optimal']
  assert best['predicted'] == pytest.approx(error_at(law.law['compute_optimal']['rows'][0]['loss']), rel=1e-4)
  assert 'outside of the' in link.summary['warnings'][0]


def test_intervals_go_through_both_laws():
  law = first(0.01, 60, 'largest:2')
  link = chain.analyse(law, LINK, '', [*FAR, {'params': 3e7, 'examples': 3e9}])
  far, row = link.summary['targets']
  for found, true in ((far, error_at(loss_at(1e10, 1e12))), (row, error_at(loss_at(3e7, 3e9)))):
    assert found['ci95'][0] < true < found['ci95'][1]
  assert row['ci95_run'][1] - row['ci95_run'][0] > row['ci95'][1] - row['ci95'][0]
  alone = link.second.boot.bands({'loss': np.array([row['through']])})[0][:, 0]  # the loss taken for certain
  assert row['ci95'][1] - row['ci95'][0] > alone[1] - alone[0]
  held = link.summary['holdout']
  assert held['n'] == 2 == len(held['rows']) and held['rmsle'] < 0.1 and all('inside' in r for r in held['rows'])


def test_link_of_runs_without_the_metric_and_of_another_form():
  law = first()
  for row in law.points.rows[:3]:
    row.pop('error')
  assert chain.analyse(law, 'error = a*loss^b + c', 'a=0.01..1,c=-1..0', []).summary['law']['n'] == len(N) - 3
  with pytest.raises(UserError, match='expected a form of loss alone, got params'):
    chain.analyse(law, 'error = a*N^-b', '', [])
  with pytest.raises(UserError, match='expected a second metric, got loss'):
    chain.analyse(law, 'loss = a*loss', '', [])
  with pytest.raises(UserError, match='no accuracy above 0'):
    chain.analyse(law, 'accuracy = a*loss^-b', '', [])
  with pytest.raises(UserError, match='METRIC = EXPRESSION'):
    chain.parse('a*loss^b')


def test_starts_are_of_either_form():
  assert chain.starts('k<5,E>0,q=1', LINK, 'E + A/N^a') == ('E>0,q=1', 'k<5')
  assert chain.starts('', None, 'E + A/N^a') == ('', '')


@pytest.mark.parametrize('text, words', [
    ('params', 'NAME=NUMBER'), ('params=-1', 'above 0'), ('params=1,params=2', 'NAME=NUMBER'), (';', 'a target such')])
def test_targets_that_cannot_be_read(text, words):
  with pytest.raises(UserError, match=words):
    target.parse(text)


def test_targets_of_other_inputs():
  with pytest.raises(UserError, match='expected examples too'):
    target.columns([{'params': 1.0}], ('params', 'examples'), None)
  with pytest.raises(UserError, match="did you mean 'params'"):
    target.columns([{'parms': 1.0, 'examples': 1.0}], ('params', 'examples'), None)
  assert target.columns([{'flops': 2.0}], ('x',), 'flops') == {'x': np.array([2.0])}


def test_a_second_metric_of_run_folders(tmp_path):
  records.write_run(tmp_path, {'config': {}, 'status': 'finished', 'params': 1000})
  lines = records.Lines(tmp_path / 'metrics.jsonl')
  for split, step, loss in (('val', 5, 2.0), ('val', 10, 1.0), ('test', 10, 3.0)):
    lines.append({'split': split, 'step': step, 'examples': 10 * step, 'loss': loss, 'error': loss / 10})
  lines.close()
  row, = load([tmp_path], also=['error', 'test/error', 'val/none']).rows
  assert (row['loss'], row['error'], row['test/error']) == (1.0, 0.1, 0.3) and 'val/none' not in row


def test_what_is_printed(capsys):
  from vit_jax.console import Console
  law = first(0.01, 20, 'largest:2')
  link = chain.analyse(law, LINK, '', FAR)
  terminal.show_link(Console(), '', link.summary)
  terminal.show_targets(Console(), [{**row, 'group': ''} for row in link.summary['targets']])
  out = capsys.readouterr().out
  for words in ('then error = lo + (hi-lo)*sigmoid(k*(loss-m))', 'through both laws', 'examples=1e+12'):
    assert words in out
