"""Selecting the best of runs that differ in a tuned column, on val, with a note if the best is at the edge."""

import json

import pytest

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.scaling import alike, estimate, tuned
from vit_jax.scaling.points import load
from vit_jax.training import evaluate

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


@pytest.mark.parametrize('metric', ['map', 'val/map'])
def test_what_is_better_the_higher_is_said_by_the_runs(sweep, metric):
  for folder in sweep.iterdir():
    record, log = records.read_run(folder), folder / 'metrics.jsonl'
    records.write_run(folder, record | {'higher_is_better': ['map']})
    rows = [row | {'map': 10 - row['loss']} for row in map(json.loads, log.read_text().splitlines())]
    log.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  points = tuned.best_of(load([sweep], metric), ['learning_rate'])
  kept = sorted({(row['params'], row['learning_rate']) for row in points.rows})
  assert kept == [(100, 1e-2), (200, 1e-2), (400, 1e-1)]


@pytest.mark.parametrize('column', ['accuracy', 'test/accuracy', 'Test_Accuracy', 'probe/accuracy', 'map', 'error',
                                    'map_error', 'probe/error', 'zero_shot_error', 'zero_shot@1'])
def test_of_tables_the_objectives_say_which_is_better(column, tmp_path):
  """A table does not say it; what no objective declares is better the lower it is."""
  (tmp_path / 'points.csv').write_text(f'x,rate,{column}\n1,1,0.3\n1,2,0.5\n2,1,0.2\n2,2,0.6\n')
  points = load([tmp_path / 'points.csv'], column, 'x')
  assert not tuned.say_which_is_better(points)
  best = tuned.best_of(points, ['rate'], higher_is_better=evaluate.higher_is_better())
  assert best.y.tolist() == ([0.3, 0.2] if column.endswith('error') else [0.5, 0.6])
  assert tuned.best_of(points, ['rate']).y.tolist() == [0.3, 0.2]


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


@pytest.mark.parametrize('rate', ['learning_rate', 'peak_lr'])
def test_rows_alike_that_differ_in_a_number_are_noted(tmp_path, rate):
  """Whatever the column is called; a result, in which every row differs, is none."""
  rows = [f'{n},{r},{2 + 50 * n ** -0.4 + abs(j - 1) / 9:.6f},{i + j / 7}'
          for i, n in enumerate((1e3, 4e3, 2e4, 1e5, 1e6)) for j, r in enumerate(RATES)]
  (tmp_path / 'points.csv').write_text(f'x,{rate},loss,seconds\n' + '\n'.join(rows) + '\n')
  points = load([tmp_path / 'points.csv'], x='x')
  fit = estimate.fit('power_offset', points.columns, points.y)
  note, = alike.tuned_columns(points, fit, [])
  assert note.startswith(f'5 of 5 sets of rows that are alike in x have several values of {rate}')
  assert f'--best_of={rate} keeps' in note and not list(alike.tuned_columns(points, fit, [rate]))
  best = tuned.best_of(points, [rate])
  assert len(best) == 5 and not list(alike.tuned_columns(best, estimate.fit('power_offset', best.columns, best.y), []))


def test_rows_alike_whose_losses_differ_for_no_visible_reason_are_noted(tmp_path):
  lines = [f'r{i}{j},{n},{(1 + 30 * n ** -0.3) * (1 + 2 * (j == 1 and i == 2)):.5f}' for i, n in enumerate(
      (1e3, 4e3, 2e4, 1e5, 1e6)) for j in range(2)]
  (tmp_path / 'points.csv').write_text('run,x,loss\n' + '\n'.join(lines) + '\n')
  points = load([tmp_path / 'points.csv'], x='x')
  note, = alike.tuned_columns(points, estimate.fit('power', points.columns, points.y), [])
  assert 'alike in x differ 3-fold in loss, and no column tells them apart: r20 and r21' in note


def test_a_law_of_the_tuned_column_asks_what_is_best(tmp_path):
  """The best batch size has the lowest loss; the smallest batch size is not the best."""
  lines = [f'{n},{b},{abs(j - 2) + n / 1e6},{1 / (1 + abs(j - 2))}'
           for n in (10, 20, 40) for j, b in enumerate((8, 16, 32, 64))]
  (tmp_path / 'points.csv').write_text('x,batch_size,loss,accuracy\n' + '\n'.join(lines) + '\n')
  points = load([tmp_path / 'points.csv'], 'batch_size', 'x')
  for by in ('loss', 'accuracy'):
    assert tuned.best_of(points, ['batch_size'], by=by, higher_is_better=('accuracy',)).y.tolist() == [32, 32, 32]
  with pytest.raises(UserError, match='the lowest batch_size is not the best; expected --best_by'):
    tuned.best_of(points, ['batch_size'])


def test_the_best_field_of_runs(sweep):
  points = load([sweep], 'optimizer.learning_rate', 'params', best_by='loss')
  best = tuned.best_of(points, ['learning_rate'], by='loss')
  assert sorted(zip(best.columns['x'], best.y)) == [(100, 1e-2)] * 2 + [(200, 1e-2)] * 2 + [(400, 1e-1)] * 2
  with pytest.raises(UserError, match='expected --best_by'):
    tuned.best_of(points, ['learning_rate'])


def test_the_frontier_of_a_cloud(tmp_path):
  lines = [f'{10 ** (i / 10)},{5 - i // 10 + i % 3}' for i in range(30)]
  (tmp_path / 'points.csv').write_text('x,loss\n' + '\n'.join(lines))
  points = tuned.frontier(load([tmp_path / 'points.csv'], x='x'), 3)
  assert points.y.tolist() == [5, 4, 3] and 'the lowest loss in each of 3 bins of x' in points.notes[-1]
