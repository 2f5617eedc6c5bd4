"""Reading points from run folders and tables, and the messages for every kind of bad input."""

import json

import numpy as np
import pytest

from vit_jax import goodput, records
from vit_jax.errors import UserError
from vit_jax.scaling import analysis, holdout
from vit_jax.scaling.points import differences, load


def make_run(folder, loss=1.0, params=1000, steps=100, status='finished', seed=0, lineage=None, data='digits'):
  config = {'family': 'vit', 'seed': seed, 'model': {'width': params // 10}, 'optimizer': {'learning_rate': 1e-3}}
  records.write_run(folder, {
      'config': config, 'config_hash': f'{params}-{steps}-{seed}', 'lineage': lineage, 'params': params,
      'params_non_embedding': params - 100, 'data': {'name': data}, 'status': status})
  lines = records.Lines(folder / 'metrics.jsonl')
  rows = (('train', steps, 9.0), ('val', steps // 2, 2 * loss), ('val', steps, loss), ('test', steps, 8.0))
  for split, step, value in rows:
    lines.append({'split': split, 'step': step, 'examples': 64 * step, 'unique_examples': 500, 'flops': 6e3 * step,
                  'loss': value, 'error': value / 10})
  lines.close()
  return folder


def write(folder, text, name='points.csv'):
  path = folder / name
  path.write_text(text)
  return path


def test_a_run_gives_its_last_evaluation_on_val(tmp_path):
  for i in range(3):
    make_run(tmp_path / f'sweep/run{i}', 1.0 + i, 1000 * (i + 1))
  points = load([tmp_path])
  assert points.y.tolist() == [1, 2, 3] and points.runs == ['run0', 'run1', 'run2']
  assert points.columns['params'].tolist() == [1000, 2000, 3000] and set(points.columns['examples']) == {6400}
  assert points.size[0] == 'flops' and points.curves['run1'][1].tolist() == [4, 2]
  assert points.rows[0]['learning_rate'] == 1e-3 and points.rows[0]['model.width'] == 100


def test_another_metric_and_split(tmp_path):
  make_run(tmp_path / 'run')
  assert load([tmp_path], 'error').y.tolist() == [0.1]
  assert load([tmp_path], 'test/loss').y.tolist() == [8]
  assert load([tmp_path], columns={'loss': 'test/loss', 'params': 'params_non_embedding'}).y.tolist() == [8]
  assert load([tmp_path], columns={'params': 'params_non_embedding'}).columns['params'].tolist() == [900]


def test_unfinished_runs_and_incomplete_lines_are_counted(tmp_path):
  make_run(tmp_path / 'good')
  make_run(tmp_path / 'other', status='running')
  with open(tmp_path / 'good/metrics.jsonl', 'a') as file:
    file.write('{"split": "val", "los')
  points = load([tmp_path])
  assert points.y.tolist() == [1.0]
  assert points.describe_dropped() == ["1 dropped, incomplete last line: good/metrics.jsonl",
                                    "1 dropped, not finished (status 'running'): other"]


def test_branches_of_a_trunk_are_one_cluster(tmp_path):
  for i, lineage in enumerate([{'trunk': 'a'}, {'trunk': 'a'}, {'trunk': 'b'}, None]):
    make_run(tmp_path / f'run{i}', 1 + i, steps=100 + i, lineage=lineage)
  points = load([tmp_path])
  assert len(set(points.clusters)) == 3 and points.clusters[0] == points.clusters[1]
  assert any('4 runs form 3 independent lineages' in words for words in points.notes)


def _change(folder, **fields):
  """Changes fields of a run.json; a dict is merged into the one that is there."""
  run = records.read_run(folder)
  for key, value in fields.items():
    run[key] = (run.get(key) or {}) | value if isinstance(value, dict) else value
  records.write_run(folder, run)


@pytest.mark.parametrize('recorded', ['lineage', 'trunk_hash', None])
def test_runs_of_one_trunk_are_one_cluster_whichever_version_wrote_them(tmp_path, recorded):
  """A later version writes a config with more fields. Trained once or not, and by whatever is recorded of it."""
  wsd = {'schedule': {'name': 'wsd', 'cooldown_fraction': 0.3}}
  for i, (field, steps) in enumerate([({}, 100), ({}, 200), ({'new': {'field': None}}, 300), ({}, 400)]):
    trunk = {'lineage': {'trunk': 'a', 'step': 7}} if recorded == 'lineage' else {'trunk_hash': 'a'} if recorded else {}
    make_run(tmp_path / f'run{i}', 1 + i, steps=steps)
    _change(tmp_path / f'run{i}', config=wsd | field | {'train': {'steps': steps}}, **(trunk if i else {}))
  make_run(tmp_path / 'seed1', 9.0, seed=1)
  _change(tmp_path / 'seed1', config=wsd)
  apart = 0 if recorded else 1  # without a record the config decides
  assert len(set(load([tmp_path]).clusters)) == 2 + apart


def test_schedules_without_a_trunk_and_early_stopping_make_independent_runs(tmp_path):
  for i, (name, patience) in enumerate([('cosine', None), ('cosine', None), ('wsd', 3), ('wsd', 3)]):
    make_run(tmp_path / f'run{i}', 1 + i, steps=100 * (i + 1))
    _change(tmp_path / f'run{i}', config={'schedule': {'name': name}, 'evaluate': {'patience': patience}})
  assert len(set(load([tmp_path]).clusters)) == 4


def test_an_early_stopped_run_gives_the_row_of_its_results(tmp_path):
  _change(make_run(tmp_path / 'stopped', steps=160), results={'step': 80, 'steps': 160})  # the row of half the steps
  _change(make_run(tmp_path / 'whole', steps=160), results={'step': 160, 'steps': 160})
  points = load([tmp_path])
  assert dict(zip(points.runs, points.y.tolist())) == {'stopped': 2.0, 'whole': 1.0}
  assert dict(zip(points.runs, points.columns['examples'].tolist())) == {'stopped': 64 * 80, 'whole': 64 * 160}


@pytest.mark.parametrize('schedule, clusters', [('wsd', 2), ('rsqrt', 2), ('cosine', 4)])
def test_runs_that_have_a_trunk_in_common_are_one_cluster_also_trained_alone(tmp_path, schedule, clusters):
  for steps in (100, 200):
    for seed in (0, 1):
      _change(make_run(tmp_path / f'{steps}-{seed}', steps=steps, seed=seed), config={
          'schedule': {'name': schedule, 'cooldown_fraction': 10 / steps}, 'train': {'steps': steps},
          'evaluate': {'every': steps // 10}, 'system': {'workers': seed}})
  points = load([tmp_path])
  assert len(set(points.clusters)) == clusters


def test_points_of_several_versions_of_the_code_are_noted(tmp_path):
  for i, code in enumerate(['a', 'a', 'b', None]):
    _change(make_run(tmp_path / f'run{i}', 1 + i, steps=100 + i), code=code)
  _change(tmp_path / 'run0', codes=[{'from_step': 0, 'code': 'b'}, {'from_step': 40, 'code': 'a'}])
  points = load([tmp_path])
  assert [row['code'] for row in points.rows] == ['a', 'a', 'b', None]
  assert any('the points are of 2 versions of the code (2 of a, 1 of b); --group=code' in note for note in points.notes)
  assert not any('versions of the code' in note for note in load([tmp_path / 'run0', tmp_path / 'run1']).notes)


def test_trunks_are_not_points(tmp_path):
  """The layout that a sweep with cooldown branches leaves: trunks in trunks/, branches beside that folder."""
  for trunk in 'ab':
    make_run(tmp_path / f'trunks/{trunk}', 9.0, steps=400, status='trunk', seed=trunk)
    for steps in (100, 200, 400):
      make_run(tmp_path / f'branch-{trunk}{steps}', 1.0, steps=steps, seed=trunk,
               lineage={'trunk': trunk, 'step': steps * 7 // 10})
  points = load([tmp_path])
  assert len(points) == 6 and set(points.y) == {1.0} and not points.dropped
  assert len(set(points.clusters)) == 2
  assert points.clusters[:3].tolist() == [points.clusters[0]] * 3  # branch-a100, branch-a200, branch-a400
  with pytest.raises(UserError, match='2 trunks, but none of their branches'):
    load([tmp_path / 'trunks'])


def test_links_in_a_circle_end_and_a_run_counts_once(tmp_path):
  for i in range(3):
    make_run(tmp_path / f'sweep/run{i}', 1.0 + i, 1000 * (i + 1))
  plain = load([tmp_path])
  for name, to in (('latest', '.'), ('best', '.'), ('sweep/aaa', 'run1'), ('sweep/back', '..')):
    (tmp_path / name).symlink_to(to)
  found = load([tmp_path])
  assert found.runs == plain.runs == ['run0', 'run1', 'run2'] and found.dropped == plain.dropped
  assert load([tmp_path / 'latest']).runs == plain.runs


@pytest.fixture
def bucket(monkeypatch):
  """gs:// in memory: epath reads object stores through fsspec, so fsspec's memory file system can replace one."""
  fsspec = pytest.importorskip('fsspec')
  from etils.epath import backend
  memory = fsspec.filesystem('memory')
  monkeypatch.setattr(backend.fsspec_backend, '_get_filesystem', lambda name: memory)
  monkeypatch.setenv('EPATH_USE_TF', 'false')
  yield memory
  memory.rm('/', recursive=True)


def test_a_bucket_is_read_like_a_disk(tmp_path, bucket):
  for i in range(3):
    make_run(tmp_path / f'sweep/run{i}', 1.0 + i, 1000 * (i + 1))
  write(tmp_path / 'sweep', 'run,params,loss\na,4000,0.5\n', 'more.csv')
  for path in (p for p in tmp_path.rglob('*') if p.is_file()):
    with bucket.open(f'gs://bucket/{path.relative_to(tmp_path)}', 'wb') as file:
      file.write(path.read_bytes())
  local, remote = load([tmp_path / 'sweep']), load(['gs://bucket/sweep'])
  assert remote.y.tolist() == local.y.tolist() == [1, 2, 3] and remote.runs == local.runs
  assert load(['gs://bucket/sweep/run1']).y.tolist() == [2]
  assert load(['gs://bucket/sweep/more.csv'], need=['params']).y.tolist() == [0.5]
  with pytest.raises(UserError, match='gs://bucket/nothing: file or folder not found'):
    load(['gs://bucket/nothing'])


def test_a_bucket_without_its_client_names_the_package(monkeypatch):
  from etils.epath import backend
  def missing(name):
    raise ImportError('Please install gcsfs to access Google Storage')
  monkeypatch.setattr(backend.fsspec_backend, '_get_filesystem', missing)
  monkeypatch.setenv('EPATH_USE_TF', 'false')
  with pytest.raises(UserError, match='gs://bucket/runs: .*Please install gcsfs'):
    load(['gs://bucket/runs'])


def test_runs_on_different_data_are_not_mixed(tmp_path):
  make_run(tmp_path / 'a', data='digits')
  make_run(tmp_path / 'b', data='fashion_mnist')
  with pytest.raises(UserError, match=r'mix data sets \(digits, fashion_mnist\).*--group=data'):
    load([tmp_path])
  assert len(load([tmp_path], group='data')) == 2


def test_sweeps_can_be_separated_by_their_folders(tmp_path):
  for seed, name in enumerate(('cnn', 'vit')):
    make_run(tmp_path / name / 'a', seed=seed)
    make_run(tmp_path / name / 'b', seed=9)  # the same run, twice
  points = load([tmp_path / 'cnn', tmp_path / 'vit'], group='folder')
  assert [row['folder'] for row in points.rows] == ['cnn', 'cnn', 'vit']
  assert 'duplicate' in points.dropped[0][1]


def test_time_spent_includes_trunks_and_unfinished_runs(tmp_path):
  for i, status in enumerate(('finished', 'trunk', 'running', 'finished')):
    events = records.Events(make_run(tmp_path / f'run{i}', status=status, seed=i) / records.EVENTS)
    events.append({'event': 'start', 'step': 0, goodput.SO_FAR: {'start': 2.0}})
    events.append({'event': 'save', 'step': 9, goodput.SO_FAR: {'start': 2.0, 'step': 5.0 + i, 'save': 1.0}})
    events.close()
  (tmp_path / 'run3' / records.EVENTS).write_text('damaged\n')
  points = load([tmp_path])
  assert len(points) == 2
  spent = {kind: seconds for kind, seconds in points.time_spent.items() if seconds}
  assert spent == {'start': 6, 'step': 18, 'save': 3}


def test_differences_from_the_most_similar_run(tmp_path):
  for i, (params, seed) in enumerate([(1000, 0), (1000, 1), (5000, 2)]):
    make_run(tmp_path / f'run{i}', 1 + i, params, seed=seed)
  assert differences(load([tmp_path])) == [
      ['seed: 0, there 1'], ['seed: 1, there 0'], ['model.width: 500, there 100', 'seed: 2, there 0']]


def test_seed_noise(tmp_path):
  for seed, loss in enumerate([1.0, 1.1, 0.9]):
    make_run(tmp_path / f'run{seed}', loss, seed=seed)
  make_run(tmp_path / 'alone', 0.5, 5000)
  noise = analysis.seed_noise(load([tmp_path]))
  assert (noise['sets'], noise['runs']) == (1, 3)
  assert noise['std_log'] == pytest.approx(np.std(np.log([1.0, 1.1, 0.9]), ddof=1))


def test_a_table_with_foreign_names(tmp_path):
  path = write(tmp_path, 'N,D,val/loss,name\n1e6,1e8,3.0,a\n2e6,2e8,2.5,b\n')
  points = load([path], columns={'params': 'N', 'examples': 'D', 'loss': 'val/loss', 'run': 'name'})
  assert points.y.tolist() == [3, 2.5] and points.columns['params'].tolist() == [1e6, 2e6] and points.runs == ['a', 'b']


def test_bad_rows_are_dropped_by_name_and_count(tmp_path):
  path = write(tmp_path, 'run,params,loss\na,1e6,3\nb,1e6,nan\nc,1e6,0\nd,,2\ne,1e6,-1\nf,1e6,high\ng,1e6,\nh,2e6,2\n')
  points = load([path], need=['params'])
  assert points.runs == ['a', 'h']
  assert dict(points.dropped) == {'b': 'loss is nan', 'c': 'loss is not above 0', 'd': 'no params',
                                  'e': 'loss is not above 0', 'f': "loss is not a number: 'high'", 'g': 'no loss'}


def test_columns_that_are_not_needed_drop_no_points(tmp_path):
  path = write(tmp_path, 'run,params,examples,loss\na,1e6,1,3\nb,,2,2\n')
  points = load([path], x='examples')
  assert len(points) == 2 and 'params' not in points.columns


def test_exact_duplicates_are_dropped_and_counted(tmp_path):
  points = load([write(tmp_path, 'x,loss\n1,3\n2,2\n1,3\n1,3.1\n')], x='x')
  assert points.y.tolist() == [3, 2, 3.1] and [why for _, why in points.dropped] == ['exact duplicate of another row']


def test_an_incomplete_last_line_of_a_table_is_dropped(tmp_path):
  points = load([write(tmp_path, 'x,loss\n1,3\n2,2\n3')], x='x')
  assert points.y.tolist() == [3, 2] and points.dropped == (('points.csv, line 4', 'incomplete last line'),)
  text = '\n'.join([json.dumps({'x': 1, 'loss': 3}), json.dumps({'x': 2, 'loss': 2}), '{"x": 3, "lo'])
  points = load([write(tmp_path, text, 'points.jsonl')], x='x')
  assert points.y.tolist() == [3, 2] and points.dropped == (('points.jsonl, line 3', 'incomplete last line'),)


@pytest.mark.parametrize('name, text, words', [
    ('p.csv', 'x,loss\n1,3\n2\n3,1\n', 'line 3: expected 2 fields as in the header, got 1'),
    ('p.csv', 'x,x,loss\n1,1,3\n', "distinct column names, got 'x' twice"),
    ('p.csv', '', 'with rows, got an empty one'),
    ('p.csv', 'x,loss\n1,nan\n', 'no points left.*loss is nan'),
    ('p.csv', 'x,los\n1,3\n', "no column 'loss'.*did you mean 'los'"),
    ('p.csv', 'y,loss\n1,3\n', "no column 'x'"),
    ('p.csv', 'x,loss,split\n1,3,val\n2,3,train\n', r'mix splits \(train, val\)'),
    ('p.csv', 'x,loss,metric\n1,3,loss\n2,3,error\n', r'mix metrics \(error, loss\)'),
    ('p.jsonl', '{"x": 1, "loss": 3}\n{"x": 2\n{"x": 3, "loss": 1}\n', 'line 2: expected JSON'),
    ('p.json', '{"x": 1}', 'expected a list of objects, one per row'),
    ('p.txt', 'x,loss\n1,3\n', "ends in .csv.*got '.txt'")])
def test_unreadable_tables_are_named(tmp_path, name, text, words):
  with pytest.raises(UserError, match=words):
    load([write(tmp_path, text, name)], x='x')


def test_a_missing_path(tmp_path):
  with pytest.raises(UserError, match='not found'):
    load([tmp_path / 'nothing'])
  with pytest.raises(UserError, match='no run.json'):
    load([tmp_path])


def points_of(tmp_path):
  rows = '\n'.join(f'r{i},{10 ** i},{9 - i},{"test" if i > 3 else "train"},{int(i < 4)}' for i in range(6))
  return load([write(tmp_path, f'run,flops,loss,part,fit\n{rows}\n')], x='flops')


@pytest.mark.parametrize('spec, held', [
    ('largest:2', [4, 5]), ('flops>=1e4', [4, 5]), ('flops > 1e4', [5]), ('loss<5', [5]),
    ('flops<=1 or loss<5', [0, 5]), ('column:part', [4, 5]), ('column:fit', [4, 5]), (None, [])])
def test_holdouts(tmp_path, spec, held):
  assert np.flatnonzero(holdout.mask(points_of(tmp_path), spec)).tolist() == held


@pytest.mark.parametrize('spec, words', [
    ('largest:6', 'from 1 to 5'), ('largest:0', 'from 1 to 5'), ('flops>=1e9', 'none of the 6'),
    ('flops>=0', 'all 6'), ('column:prt', "did you mean 'part'"), ('flop>=1', "did you mean 'flops'"),
    ('biggest', 'largest:K'), ('flops>=1e4 or most', 'expected largest:K'), ('part>=1', "numbers, but 'part'")])
def test_bad_holdouts_are_refused(tmp_path, spec, words):
  with pytest.raises(UserError, match=words):
    holdout.mask(points_of(tmp_path), spec)
