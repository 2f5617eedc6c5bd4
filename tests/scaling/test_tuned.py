"""Selecting the best of runs that differ in a tuned column, on val, with a note if the best is at the edge."""

import json

import pytest

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.scaling import tuned
from vit_jax.scaling.points import load

RATES, SIZES = (1e-3, 1e-2, 1e-1), (100, 200, 400)


def _run(folder, params, rate, seed, val, test):
  records.write_run(folder, {
      'config': {'family': 'vit', 'seed': seed, 'model': {'width': params}, 'optimizer': {'learning_rate': rate}},
      'config_hash': f'{params}-{rate}-{seed}', 'params': params, 'data': {'name': 'digits'}, 'status': 'finished'})
  rows = [{'split': split, 'step': 9, 'examples': 90, 'flops': 90 * params, 'loss': loss}
          for split, loss in (('val', val), ('test', test))]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


@pytest.fixture(name='sweep')
def _sweep(tmp_path):
  """The best rate on val is the middle one for the first two sizes and the last for the third; on test, the first."""
  for i, params in enumerate(SIZES):
    for j, rate in enumerate(RATES):
      for seed in range(2):
        best = (1, 1, 2)[i]
        _run(tmp_path / f'{params}-{rate}-{seed}', params, rate, seed, 1 + abs(j - best) + 0.1 * seed, 2.0 + j)
  return tmp_path


@pytest.mark.parametrize('name', ['learning_rate', 'optimizer.learning_rate'])
def test_the_best_are_kept_with_all_their_seeds(sweep, name):
  points = tuned.best_of(load([sweep]), [name])
  kept = sorted({(row['params'], row['learning_rate']) for row in points.rows})
  assert kept == [(100, 1e-2), (200, 1e-2), (400, 1e-1)] and len(points) == 6
  assert points.describe_dropped()[0].startswith(f'12 dropped, another {name} is better: 100-0.001-0')
  assert any('in 1 of them' in note and 'extend the grid' in note for note in points.notes)


def test_a_law_of_test_errors_is_not_selected_by_test_errors(sweep):
  points = tuned.best_of(load([sweep], 'test/loss'), ['learning_rate'])
  assert sorted(points.y.tolist()) == [3.0, 3.0, 3.0, 3.0, 4.0, 4.0]


def test_rows_of_tables_are_selected_by_their_metric(tmp_path):
  table = tmp_path / 'points.csv'
  table.write_text('params,examples,rate,loss\n1,1,1e-2,3\n1,1,1e-1,2\n1,1,1,4\n2,1,1e-2,1\n2,1,1e-1,1.5\n2,1,1,9\n')
  points = tuned.best_of(load([table]), ['rate'])
  assert points.y.tolist() == [2, 1]
  assert any('in 1 of them' in note for note in points.notes)
  with pytest.raises(UserError, match='ratee: unknown column'):
    tuned.best_of(load([table]), ['ratee'])


def test_groups_are_tuned_separately(tmp_path):
  table = tmp_path / 'points.csv'
  table.write_text('params,kind,rate,loss\n1,a,1,3\n1,a,2,4\n1,b,1,6\n1,b,2,5\n')
  assert tuned.best_of(load([table], group='kind'), ['rate'], 'kind').y.tolist() == [3, 5]
  assert tuned.best_of(load([table]), ['rate']).y.tolist() == [3, 6]


def test_several_learning_rates_are_noted(sweep):
  notes = tuned.note_untuned(load([sweep])).notes
  assert any('3 of 3 configurations have several learning rates' in note for note in notes)
  best = tuned.best_of(load([sweep]), ['learning_rate'])
  assert tuned.note_untuned(best) is best
