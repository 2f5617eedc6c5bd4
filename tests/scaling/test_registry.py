"""Registered predictions: written once, graded on new runs at the target alone, counted over time."""

import json

import command_line
import numpy as np
import pytest

from vit_jax.errors import UserError
from vit_jax.scaling import registry
from vit_jax.scaling.points import Points


def points(sizes, y, prefix='r'):
  count = len(sizes)
  return Points('loss', None, np.array(y, float), {'params': np.array(sizes, float), 'examples': np.full(count, 1e6)},
                [f'{prefix}{i}' for i in range(count)], np.arange(count), [{} for _ in sizes], {})


def register(path, value=2.0, params=100.0):
  row = {'target': {'params': params, 'examples': 1e6}, 'metric': 'loss', 'predicted': value, 'group': '',
         'ci95': [value - 0.05, value + 0.05], 'ci95_run': [value - 0.1, value + 0.1]}
  return registry.register(str(path), points([1, 2], [3, 2.5]), [row], {'read': {'group': None}})


def test_only_new_runs_at_the_target_are_graded(tmp_path):
  register(tmp_path / 'a.json')
  found, = registry.read(str(tmp_path))
  now = points([100, 100.5, 90, 100], [2.05, 2.3, 2.0, 1.0])
  now = now.take(np.arange(4))
  now.runs[3] = 'r0'  # a run that the law had seen
  now.runs[0] = 'new'
  rows = registry.grade(found, found['predictions'][0], now)
  assert [(row['run'], row['inside']) for row in rows] == [('new', True)]
  now.runs[1] = 'other'
  rows = registry.grade(found, found['predictions'][0], now)
  assert [(row['run'], row['inside']) for row in rows] == [('new', True), ('other', False)]
  assert rows[1]['error'] == pytest.approx(0.15)


def test_a_registration_says_what_it_is_of(tmp_path):
  out = register(tmp_path / 'a.json')
  assert {'date', 'code', 'points', 'runs', 'predictions', 'commit', 'read'} <= json.loads(
      (tmp_path / 'a.json').read_text()).keys()
  assert out['points'] == registry.digest(points([1, 2], [3, 2.5]).take(np.array([1, 0])))  # whatever their order
  assert out['points'] != registry.digest(points([1, 2], [3, 2.6]))
  with pytest.raises(UserError, match='exists; a registered prediction is not changed'):
    registry.check(str(tmp_path / 'a.json'), 'params=1', 10)
  with pytest.raises(UserError, match='expected --target'):
    registry.check(str(tmp_path / 'b.json'), None, 10)
  with pytest.raises(UserError, match='ends in .json'):
    registry.check(str(tmp_path / 'b'), 'params=1', 10)


def test_calibration_over_time():
  rows = [{'date': f'2026-0{1 + i // 4}-01', 'inside': i % 2 == 0, 'error': 0.1 * (-1) ** i} for i in range(8)]
  found = registry.calibration(rows)
  assert (found['n'], found['inside'], found['high']) == (8, 4, 4)
  assert [(row['n'], row['inside']) for row in found['over_time']] == [(4, 2), (8, 4)]
  assert found['p'] < 0.01 and 'too few' in found['words']
  assert registry.calibration([])['words'] == 'nothing to grade yet'


def test_files_that_are_no_registrations(tmp_path):
  (tmp_path / 'law.json').write_text('{}')
  for path, words in ((tmp_path / 'law.json', 'that --register wrote'), (tmp_path, 'found no file'),
                      (tmp_path / 'none', 'not found')):
    with pytest.raises(UserError, match=words):
      registry.read(str(path))


def test_the_commands_register_and_grade(tmp_path):
  random = np.random.default_rng(0)
  x = np.geomspace(1e3, 1e6, 12)
  y = (1 + 30 * x ** -0.4) * np.exp(0.01 * random.standard_normal(12))
  table, env = tmp_path / 't.csv', command_line.ON_CPU | {'COLUMNS': '120'}
  write = lambda count: table.write_text('run,examples,loss\n' + ''.join(
      f'r{i},{a},{b}\n' for i, (a, b) in enumerate(zip(x[:count], y[:count]))))
  write(9)
  done = command_line.run('law', table, '--x=examples', '--form=power_offset', '--bootstrap=50',
                          f'--target=examples={x[10]};examples={x[11]};examples=1e9', f'--register={tmp_path}/p/a.json',
                          env=env)
  assert done.returncode == 0 and 'registered: ' in done.stdout, done.stderr
  write(12)
  done = command_line.run('law', table, f'--score={tmp_path}/p', f'--out={tmp_path}/out', env=env)
  assert done.returncode == 0, done.stderr
  found = json.loads((tmp_path / 'out/score.json').read_text())
  assert [row['run'] for row in found['rows']] == ['r10', 'r11'] and len(found['waiting']) == 1
  assert f'{found["calibration"]["inside"]} of 2 graded runs inside' in done.stdout and 'waiting: loss' in done.stdout
