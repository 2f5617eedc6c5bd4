"""What is sent of a run to W&B and MLflow: to stand-ins for their clients, and to the real ones where installed."""

import concurrent.futures
import io
import json
import sys
import threading
import time
import types

import jax
import pytest
from rich.console import Console

from vit_jax import records, tracking
from vit_jax.errors import UserError
from vit_jax.rehearsal import job
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

WANDB = '''
import json, os, types
offline = False

class Run:
  def __init__(self, **given):
    self.offline, self.url, self.file = False, 'https://wandb.test/' + given['id'], os.environ['FAKE_CLIENT']
    self.write(init={k: v for k, v in given.items() if k != 'settings'})
    with open(self.file) as file:
      steps = [row['log'][1] for row in map(json.loads, file) if 'log' in row and row['id'] == given['id']]
    self.starting_step, self.id = max(steps, default=-1) + 1, given['id']

  def write(self, **row):
    with open(self.file, 'a') as file:
      file.write(json.dumps({'id': getattr(self, 'id', None), **row}) + '\\n')

  def log(self, values, step):
    self.write(log=[values, step])

  def finish(self, exit_code):
    self.write(finish=exit_code)

def Settings(**given):
  return given

def init(**given):
  return Run(**given)
'''
RECORD = {'config': {'model': {'width': 16}, 'tag': 'a'}, 'config_hash': 'abc', 'params': 7, 'codes': [],
          'data': {'name': 'digits', 'unique_examples': 9}, 'devices': {'kind': 'cpu', 'count': 1}}


@pytest.fixture
def client(tmp_path, monkeypatch):
  """Installs a stand-in for wandb; returns a function that reads what it was sent."""
  place, sent = tmp_path / 'site', tmp_path / 'sent.jsonl'
  place.mkdir()
  (place / 'wandb.py').write_text(WANDB)
  monkeypatch.syspath_prepend(place)
  monkeypatch.delitem(sys.modules, 'wandb', raising=False)
  monkeypatch.setenv('FAKE_CLIENT', str(sent))
  yield lambda what: [row[what] for row in map(json.loads, sent.read_text().splitlines()) if what in row]
  sys.modules.pop('wandb', None)


def _row(step, split='train', **values):
  return {'split': split, 'step': step, 'examples': 10 * step, 'loss': 1 / step, **values}


def _tracking(folder, name, note=print):
  return tracking.Tracking(folder, name, ('loss',), records.Events(folder / records.EVENTS), note)


def _track(folder, name, before, rows, finished, said=None):
  """Follows a run whose log has the rows `before`, sends rows, and ends."""
  tracked = _tracking(folder, name, said.append if said is not None else print)
  tracked.follow(RECORD, before, before[-1]['step'] if before else 0)
  for row in rows:
    tracked.log(row)
  tracked.close(finished)


def test_the_rows_of_a_run_are_sent_by_their_names_and_steps(tiny_config, tmp_path, client, monkeypatch):
  monkeypatch.setattr(run_lib.mesh_lib, 'make_mesh', lambda config, make=run_lib.mesh_lib.make_mesh: make(
      config, jax.devices()[:1]))
  tiny_config.system.track, tiny_config.train.steps = 'wandb', 4
  run, told = run_lib.prepare(run_config.cast(tiny_config)), io.StringIO()
  loop.train(run, tmp_path / 'law' / 'one', Display(Console(file=told, width=200)))
  rows = records.read_rows(tmp_path / 'law' / 'one' / records.METRICS)
  assert client('log') == [[{f'{row["split"]}/{name}': value for name, value in row.items()
                             if name not in ('split', 'step')}, row['step']] for row in rows]
  assert {row['split'] for row in rows} == {'train', 'val', 'test'}
  (begun,) = client('init')
  assert (begun['name'], begun['group'], begun['project']) == ('one', 'law', 'vit_jax')
  assert begun['config']['config_hash'] == run.config_hash and begun['config']['model.width'] == 16
  assert client('finish') == [0] and f'wandb: https://wandb.test/{begun["id"]}' in told.getvalue()


def test_a_resumed_run_goes_on_with_the_same_one_and_brings_it_up_to_its_log(tmp_path, client):
  first, second = [_row(2), _row(4)], [_row(6), _row(6, 'val')]
  _track(tmp_path / 'run', 'wandb', [], first, False)
  _track(tmp_path / 'run', 'wandb', [*first, _row(5)], second, True)  # the row of step 5 did not arrive
  ids = [given['id'] for given in client('init')]
  assert ids[0] == ids[1] and [step for _, step in client('log')] == [2, 4, 5, 6, 6]
  assert client('finish') == [1, 0]
  _track(tmp_path / 'other', 'wandb', [], first, True)
  assert client('init')[-1]['id'] != ids[0]


def test_a_service_that_fails_is_said_once_and_the_run_goes_on(tmp_path, client, monkeypatch):
  import wandb
  said = []
  monkeypatch.setattr(wandb, 'init', lambda **given: sys.exit('no key'))  # as clients do that would ask a person
  _track(tmp_path / 'run', 'wandb', [], [_row(step) for step in range(1, 9)], True, said)
  assert said == ['wandb: SystemExit: no key. The run goes on without it']
  events = [event for event in records.read_events(tmp_path / 'run' / records.EVENTS) if event['event'] != 'tracked']
  assert [(event['event'], event['service']) for event in events] == [('untracked', 'wandb')]


def test_no_step_waits_for_a_service(tmp_path, client, monkeypatch):
  import wandb
  said, answers = [], threading.Event()
  monkeypatch.setattr(wandb, 'init', lambda **given: answers.wait(60))
  monkeypatch.setattr(tracking, '_LAST_S', {True: 0.1})
  _track(tmp_path / 'run', 'wandb', [], [_row(1), _row(2)], True, said)
  answers.set()
  assert said == ['wandb: the last 2 rows were not sent within 0.1 s']


def test_tensorboard_has_all_columns_where_asked(tmp_path):
  names = {}
  for name in ('', 'tensorboard'):
    _track(tmp_path / f'run{name}', name, [], [_row(1, error=0.5)], True)
    (file,) = (tmp_path / f'run{name}' / 'tensorboard').iterdir()
    content = file.read_bytes()
    names[name] = {column for column in ('train/loss', 'train/error', 'train/examples', 'model.width')
                   if column.encode() in content}
  assert names[''] == {'train/loss'} and len(names['tensorboard']) == 4


def test_a_client_that_is_not_installed_is_named_before_anything_is_opened(tiny_config, tmp_path, monkeypatch):
  monkeypatch.setattr(sys, 'path', [str(tmp_path)])
  monkeypatch.delitem(sys.modules, 'wandb', raising=False)
  (tmp_path / 'wandb').mkdir()  # W&B's folder of runs is no client
  tiny_config.system.track = 'wandb'
  for refuse in (run_lib.check, job.open_job):  # before a run, and before a plan or files for a cluster
    with pytest.raises(UserError, match=r"system.track='wandb': wandb is not installed: pip install wandb"):
      refuse(run_config.cast(tiny_config))


def test_tracking_is_no_part_of_the_identity(tiny_config):
  plain = run_config.run_hash(run_config.cast(tiny_config))
  tiny_config.system.track = 'mlflow'
  assert run_config.run_hash(run_config.cast(tiny_config)) == plain


def test_numbers_that_are_none_are_left_out():
  assert tracking.columns({'split': 'val', 'step': 3, 'loss': 0.5, 'nan': float('nan'), 'none': None}) == {
      'val/loss': 0.5}


def test_wandb_itself_offline(tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  monkeypatch.setattr(tracking, '_LAST_S', {True: 100, False: 100})  # it starts a process for each run
  said = []
  runs = [threading.Thread(target=_track, args=(tmp_path / name, 'wandb', [], [_row(1)], False, said)) for name in 'ab']
  for run in runs:  # as packed runs are
    run.start()
  for run in runs:
    run.join()
  _track(tmp_path / 'a', 'wandb', [_row(1)], [_row(2)], True, said)
  assert len(said) == 3 and all('wandb sync' in text for text in said)
  folders = {name: sorted((tmp_path / name / 'wandb').glob('offline-run-*/run-*.wandb')) for name in 'ab'}
  assert len({path.name for path in folders['a']}) == 1 and folders['a'][0].name != folders['b'][0].name
  for path in (folders['a'][-1], folders['b'][0]):
    assert all(text in path.read_bytes() for text in (b'train/loss', b'model.width', b'config_hash'))


def test_mlflow_itself_in_a_local_store(tmp_path, monkeypatch):
  mlflow = pytest.importorskip('mlflow')
  monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/mlflow.db')
  monkeypatch.setattr(tracking, '_LAST_S', {True: 100, False: 100})
  first, odd = [_row(2), _row(4)], {'loss@256': 3.0}
  _track(tmp_path / 'run', 'mlflow', [], first, False)
  _track(tmp_path / 'run', 'mlflow', [*first, _row(5)], [_row(6, 'val', **odd)], True)
  client = mlflow.MlflowClient()
  (run,) = client.search_runs([client.get_experiment_by_name('vit_jax').experiment_id])
  assert (run.info.run_name, run.info.status) == ('run', 'FINISHED')
  assert run.data.params['model.width'] == '16' and run.data.params['config_hash'] == 'abc'
  assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, 'train/loss')] == [
      (2, 1 / 2), (4, 1 / 4), (5, 1 / 5)]
  assert run.data.metrics['val/loss_256'] == 3.0


def test_one_process_after_the_other_opens_mlflows_database(monkeypatch):
  """A new SQLite file is damaged by two clients that make its tables at once."""
  inside, most = [], []

  class Client:

    def __init__(self):
      inside.append(self)
      most.append(len(inside))
      time.sleep(0.05)
      inside.pop()

    def get_experiment_by_name(self, name):
      return types.SimpleNamespace(experiment_id='7')

  mlflow = types.ModuleType('mlflow')
  mlflow.MlflowClient, mlflow.get_tracking_uri = Client, lambda: 'sqlite:///new.db'
  mlflow.exceptions = types.ModuleType('mlflow.exceptions')
  mlflow.exceptions.MlflowException = ValueError
  monkeypatch.setitem(sys.modules, 'mlflow', mlflow)
  monkeypatch.setitem(sys.modules, 'mlflow.exceptions', mlflow.exceptions)
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    places = list(pool.map(lambda _: tracking._Mlflow()._open('mine'), range(4)))
  assert places == ['7'] * 4 and max(most) == 1
