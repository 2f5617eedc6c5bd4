"""The page of many runs shows what their files say: what differs, how far, why not, the law so far and the ends."""

import json
import pathlib
import re

import board_runs
import pytest

from vit_jax import records
from vit_jax.errors import UserError
from vit_jax.sweeps import board_page


@pytest.fixture(name='root')
def _root(tmp_path):
  board_runs.grid(tmp_path)
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
  assert (failed['status'], failed['why']) == ('failed', f'exit code 1: {board_runs.EVIL}')
  assert (stopped['step'], stopped['steps'], stopped['fields']) == (800, 1600, ['vit', '1'])
  rows = [row for row in records.read_rows(root / 'vit-long' / records.METRICS) if row['split'] == 'val']
  assert stopped['y'] == pytest.approx([row['loss'] for row in rows], rel=1e-5) and stopped['x'][-1] == 8000
  assert '<img' not in (root / 'index.html').read_text() and 'exit code 1' in data['counts'] + json.dumps(data['runs'])


def test_the_headline_is_the_answer_of_two_groups_and_ends_are_predicted(root):
  data = _data(_board(root).render())
  multiplier = float(re.match(r'vit reaches loss \S+ with (\S+)x the FLOPs of swin', data['headline'])[1])
  assert 1 / multiplier == pytest.approx(board_runs.FACTOR, rel=0.15)
  assert [law['name'] for law in data['laws']] == ['swin', 'vit']
  run = next(run for run in data['runs'] if run['name'] == 'vit-long')
  assert run['end'][0] == pytest.approx(board_runs.loss_at(8000, 16_000, 'vit'), rel=0.02)
  assert run['end'][1] < run['end'][0] < run['end'][2]
  assert {run['color'] for run in data['runs'] if run['group'] == 'vit'} == {data['laws'][1]['color']}


@pytest.mark.parametrize('done, times, said', [
    (0.5, 0.5, 'is below the interval already'), (1.0, 0.8, 'ended below the interval'),
    (1.0, 1.2, 'ended above the interval'), (1.0, 1.0, ''), (0.5, 1.2, '')])
def test_a_run_that_leaves_the_interval_of_its_predicted_end_is_said(root, done, times, said):
  board = _board(root)
  predicted = {run['name']: run['end'] for run in _data(board.render(live=True))['runs']}
  board_runs.write(root, 'vit-long', {'seed': 1}, 8000, 1600, 'finished' if done == 1 else 'running', done, times=times)
  text = board.render()
  runs = {run['name']: run for run in _data(text)['runs']}
  assert runs['vit-long']['left'] == said and all(not run['left'] for name, run in runs.items() if name != 'vit-long')
  if done == 1:  # what was predicted before it was known
    assert runs['vit-long']['end'] == predicted['vit-long']
  assert not said or f'vit-long: {runs["vit-long"]["status"]}, step {1600 * done:,.0f} {said}' in text


def test_without_enough_runs_the_page_says_why_there_is_no_law(tmp_path):
  board_runs.write(tmp_path, 'a', {}, 1000, 100)
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
  board_runs.write(tmp_path, 'a', {}, 1000, 5000, rows=500)
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
