"""The page of many runs shows what their files say: what differs, how far, why not, the law so far and the ends."""

import json
import pathlib
import re
import zlib

import numpy as np
import pytest

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.sweeps import board_page

EVIL = '</script><img src=x onerror=alert(1)>'
FACTOR = 0.5  # the FLOPs that the family swin needs for the loss of vit, in these runs


def _loss(params, examples, family):
  scale = FACTOR ** 0.25 if family == 'swin' else 1.0  # of both terms: FLOPs to the power of a quarter
  return 0.2 + scale * (8 * params ** -0.5 + 40 * examples ** -0.5)


def _write(root, name, config, params, steps, status='finished', done=1.0, rows=6):
  """A run folder with a curve that ends at the loss of its law, or on the way there."""
  folder, random = root / name, np.random.default_rng(zlib.crc32(name.encode()))
  folder.mkdir(parents=True)
  config = {'family': 'vit', 'seed': 0, 'data': {'batch_size': 10}, 'model': {'width': 8}, 'system': {'mesh': name},
            **config}
  at = np.linspace(steps / rows, steps, rows)[:max(1, round(done * rows))].astype(int)
  loss = [float(_loss(params, 10 * step, config['family']) * np.exp(0.001 * random.standard_normal())) for step in at]
  lines = [{'split': split, 'step': int(step), 'examples': 10 * int(step), 'flops': 60 * params * int(step),
            'loss': value} for step, value in zip(at, loss) for split in ('train', 'val')]
  (folder / records.METRICS).write_text(''.join(json.dumps(line) + '\n' for line in lines))
  results = {'step': int(at[-1]), 'steps': steps, 'val': {'loss': loss[-1]}} if status == 'finished' else None
  records.write_run(folder, {'config': config, 'config_hash': name, 'status': status, 'params': params,
                             'steps': steps, 'results': results})
  return folder


@pytest.fixture(name='root')
def _root(tmp_path):
  """A grid of two families, one run that stopped half-way, and one that failed."""
  for family in ('vit', 'swin'):
    for params in (1000, 2000, 4000, 8000):
      for steps in (100, 200, 400, 800):
        _write(tmp_path, f'{family}-{params}-{steps}', {'family': family}, params, steps)
  _write(tmp_path, 'vit-long', {'seed': 1}, 8000, 1600, status='running', done=0.5)
  failed = _write(tmp_path, 'vit-failed', {'seed': 2}, 8000, 1600, status='running', done=0.2)
  (failed / records.EVENTS).write_text(json.dumps({'event': 'failed', 'why': 'exit code 1', 'said': EVIL}) + '\n')
  return tmp_path


def _data(text):
  return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def _board(root, **options):
  return board_page.Board('mine', board_page.find([str(root)]), root / 'index.html', **options)


def test_the_page_shows_what_the_files_say(root):
  board = _board(root)
  board.write()
  data = _data((root / 'index.html').read_text())
  runs = {run['name']: run for run in data['runs']}
  assert len(runs) == 34 and data['columns'] == ['family', 'seed'] and data['live'] is False
  failed, stopped = runs['vit-failed'], runs['vit-long']
  assert (failed['status'], failed['why']) == ('failed', f'exit code 1: {EVIL}')
  assert (stopped['step'], stopped['steps'], stopped['fields']) == (800, 1600, ['vit', '1'])
  rows = [row for row in records.read_rows(root / 'vit-long' / records.METRICS) if row['split'] == 'val']
  assert stopped['y'] == pytest.approx([row['loss'] for row in rows], rel=1e-5) and stopped['x'][-1] == 8000
  assert '<img' not in (root / 'index.html').read_text() and 'exit code 1' in data['counts'] + json.dumps(data['runs'])


def test_the_headline_is_the_answer_of_two_groups_and_ends_are_predicted(root):
  data = _data(_board(root).render())
  multiplier = float(re.match(r'vit reaches loss \S+ with (\S+)x the FLOPs of swin', data['headline'])[1])
  assert 1 / multiplier == pytest.approx(FACTOR, rel=0.15)
  assert [law['name'] for law in data['laws']] == ['swin', 'vit']
  run = next(run for run in data['runs'] if run['name'] == 'vit-long')
  assert run['end'][0] == pytest.approx(_loss(8000, 16_000, 'vit'), rel=0.02)
  assert run['end'][1] < run['end'][0] < run['end'][2]
  assert {run['color'] for run in data['runs'] if run['group'] == 'vit'} == {data['laws'][1]['color']}


def test_without_enough_runs_the_page_says_why_there_is_no_law(tmp_path):
  _write(tmp_path, 'a', {}, 1000, 100)
  data = _data(_board(tmp_path).render(live=True))
  assert data['laws'] == [] and 'no law yet: the finished runs (1) have' in data['why_not'] and data['live'] > 0
  assert data['headline'] == 'mine: 1 of 1 runs finished'


def test_a_law_is_fitted_again_when_runs_finish(root):
  board = _board(root)
  assert len(_data(board.render())['laws']) == 2
  before = board._law
  board.render()
  assert board._law is before
  run = records.read_run(root / 'vit-long')
  records.write_run(root / 'vit-long', run | {'status': 'finished', 'results': {'step': 800, 'steps': 800}})
  board.render()
  assert board._law is not before


def test_thousands_of_runs_are_no_large_page(tmp_path, monkeypatch):
  """Curves are thinned: the more runs, the fewer places each."""
  _write(tmp_path, 'a', {}, 1000, 5000, rows=500)
  jobs = board_page.find([str(tmp_path)]) * 3000
  monkeypatch.setattr(board_page.board_law, 'fit', lambda *_: board_page.board_law.SoFar(None, 'no law'))
  text = board_page.Board('many', jobs, tmp_path / 'page.html').render()
  data = _data(text)
  assert len(text) < 2e6 and data['most'] == 8
  assert len(data['runs'][0]['x']) == 8 and data['runs'][0]['x'][-1] == 50_000


def test_a_disk_that_is_full_does_not_end_a_sweep(root, monkeypatch):
  def full(*_):
    raise OSError(28, 'No space left on device')
  monkeypatch.setattr(board_page.durable, 'write', full)
  board = _board(root)
  board.poll()
  with pytest.raises(OSError):
    board.write()


def test_folders_of_run_folders_and_nothing(root, tmp_path_factory):
  assert len(board_page.find([str(root / 'vit-long'), str(root)])) == 34
  empty = pathlib.Path(tmp_path_factory.mktemp('empty'))
  with pytest.raises(UserError, match='found no run.json'):
    board_page.find([str(empty)])
