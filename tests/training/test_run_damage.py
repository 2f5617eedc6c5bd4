"""A run folder with a damaged file: what is wrong is said, what the message names cures it, and the end is the same."""

import json
import re
import shutil
import subprocess

import command_line
import in_turn
import pytest

from vit_jax import config as config_lib
from vit_jax import records
from vit_jax.checkpoint import Damaged
from vit_jax.errors import UserError
from vit_jax.training import config as run_config
from vit_jax.training import loop, run_folder
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display


def _config():
  c = config_lib.defaults('vit')
  c.model.patch_size, c.model.pool = 4, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 16, 1, 32, 2
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate = 32, 12, 1e-2
  c.evaluate.every, c.system.log_every, c.system.keep_last = 4, 2, 3
  c.schedule.name, c.schedule.cooldown_fraction = 'wsd', 0.5
  return run_config.cast(c)


@pytest.fixture(name='run', scope='module')
def _run():
  return run_lib.prepare(_config())


def _train(run, workdir, trunk=None):
  results = run_folder.finished_results(run, workdir)
  return results or loop.train(run, workdir, Display(), trunk=trunk)


@pytest.fixture(name='finished', scope='module')
def _finished(run, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'whole run'  # its name needs quotes
  _train(run, workdir)
  return workdir


@pytest.fixture(name='workdir')
def _workdir(finished, tmp_path):
  """A copy as it was before its end: three checkpoints, two good ones before the last step."""
  workdir = tmp_path / 'my run'
  shutil.copytree(finished, workdir)
  record = records.read_run(workdir)
  record.pop('results')
  records.write_run(workdir, record | {'status': 'running'})
  shutil.rmtree(workdir / 'checkpoints' / '12')
  return workdir


def _same_end(workdir, finished, rows=True):
  assert command_line.final_arrays(workdir) == command_line.final_arrays(finished)
  assert records.read_run(workdir)['results'] == records.read_run(finished)['results']
  if rows:
    assert (workdir / records.METRICS).read_bytes() == (finished / records.METRICS).read_bytes()


def _do_as_told(message):
  subprocess.run(re.search('`(.*?)`', message)[1], shell=True, check=True)


def _spoil_log(workdir):
  path = workdir / records.METRICS
  content = bytearray(path.read_bytes())
  content[content.index(b'"loss": ') + 9] ^= 1
  path.write_bytes(content)


@pytest.mark.parametrize('spoil', [_spoil_log, lambda workdir: (workdir / records.METRICS).unlink()])
def test_a_damaged_log_is_set_aside_as_the_message_says(run, workdir, finished, spoil):
  spoil(workdir)
  before = sorted(path for path in workdir.rglob('checkpoints/*'))
  with pytest.raises(Damaged, match='The arrays of step 8 are good, only the log is damaged') as refused:
    _train(run, workdir)
  assert sorted(path for path in workdir.rglob('checkpoints/*')) == before
  _do_as_told(str(refused.value))
  _train(run, workdir)
  _same_end(workdir, finished, rows=False)
  rows = records.read_rows(workdir / records.METRICS)
  assert rows == [row for row in records.read_rows(finished / records.METRICS)
                  if row['step'] > 8 or (row['step'], row['split']) == (8, 'val')]  # it is scored again
  assert (workdir / 'metrics.damaged-8.jsonl').exists()


def test_a_log_that_was_set_aside_is_watched_from_then_on(run, workdir, finished):
  (workdir / records.METRICS).rename(workdir / 'metrics.damaged-4.jsonl')
  shutil.rmtree(workdir / 'checkpoints' / '8')
  _train(run, workdir)
  _same_end(workdir, finished, rows=False)
  record = records.read_run(workdir)
  record.pop('results')
  records.write_run(workdir, record | {'status': 'running'})
  _spoil_log(workdir)
  _train(run, workdir)  # steps 8 and 12 do not fit the log, so it goes on from step 4, whose log was set aside
  _same_end(workdir, finished, rows=False)
  assert [event['step'] for event in records.read_events(workdir / records.EVENTS) if event['event'] == 'damaged'] == [
      12, 8]


def test_swapped_checkpoints_are_named_and_renamed_back(run, workdir, finished):
  folder = workdir / 'checkpoints'
  swap = lambda: [(folder / a).rename(folder / b) for a, b in (('4', 'x'), ('8', '4'), ('x', '8'))]
  swap()
  with pytest.raises(UserError, match='step 8: it holds step 4: its folder was renamed; name it 4 again'):
    _train(run, workdir)
  swap()
  _train(run, workdir)
  _same_end(workdir, finished)


def test_a_copy_under_another_step_is_not_used(run, workdir, finished):
  shutil.copytree(workdir / 'checkpoints' / '4', workdir / 'checkpoints' / '10')
  _train(run, workdir)
  _same_end(workdir, finished)


@pytest.mark.parametrize('content', in_turn.slow_but(
    (b'', b'{"status": "running"}'),
    (b'', b'{}', b'\377', b'[1]', b'{"status": 3}', b'{"status": "running"}')))
def test_a_damaged_run_json_is_cured_as_the_message_says(run, workdir, finished, content):
  (workdir / records.RUN).write_bytes(content)
  with pytest.raises(UserError, match='run.json: .*it resumes from its checkpoints') as refused:
    _train(run, workdir)
  _do_as_told(str(refused.value))
  _train(run, workdir)
  _same_end(workdir, finished)


@pytest.mark.parametrize('line', in_turn.slow_but(
    (b'\377', b'{"event": "begun"}'),
    (b'\377', b'{}', b'[]', b'{"event": "begun"}', b'{"event": 3}', b'{"event": "train"}')))
def test_bad_lines_of_events_stop_nothing(run, workdir, finished, line):
  path = workdir / records.EVENTS
  path.write_bytes(line + b'\n' + path.read_bytes() + line + b'\n')
  Display().summary(_train(run, workdir), run.objective, workdir)
  _same_end(workdir, finished)


@pytest.fixture(name='trunk', scope='module')
def _trunk(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('trunks') / 'trunk'
  _train(run_lib.prepare_trunk(_config(), [3, 6]), workdir)
  return workdir


def _spoil_arrays(checkpoint):
  shutil.rmtree(checkpoint / 'state')


@pytest.mark.parametrize('steps, begins', [((6,), 3), ((3, 6), None)])
def test_a_branch_goes_round_damaged_checkpoints_of_its_trunk(run, finished, trunk, tmp_path, steps, begins):
  shutil.copytree(trunk, tmp_path / 'trunk')
  for step in steps:
    _spoil_arrays(tmp_path / 'trunk' / 'checkpoints' / str(step))
  _train(run, tmp_path / 'run', tmp_path / 'trunk')
  _same_end(tmp_path / 'run', finished, rows=False)
  lineage = records.read_run(tmp_path / 'run')['lineage']
  assert (lineage and lineage['step']) == begins
  around = [event['why'] for event in records.read_events(tmp_path / 'run' / records.EVENTS)
            if event['event'] == records.AROUND]
  assert len(around) == len(steps) and 'its checkpoint of step 6 cannot be used' in around[0]


def test_a_branch_goes_round_a_trunk_without_a_readable_record(run, finished, trunk, tmp_path):
  shutil.copytree(trunk, tmp_path / 'trunk')
  (tmp_path / 'trunk' / records.RUN).write_bytes(b'')
  _train(run, tmp_path / 'run', tmp_path / 'trunk')
  _same_end(tmp_path / 'run', finished)


def test_a_branch_that_lost_its_record_is_still_a_branch(run, trunk, tmp_path):
  _train(run, tmp_path / 'run', trunk)
  before = records.read_run(tmp_path / 'run')
  assert before['lineage']['step'] == 6
  (tmp_path / 'run' / records.RUN).unlink()
  _train(run, tmp_path / 'run', trunk)
  assert json.dumps(records.read_run(tmp_path / 'run')) == json.dumps(before)


def test_logs_are_safe_before_anything_relies_on_them(run, tmp_path, monkeypatch):
  """In a bucket a log is there once it is uploaded: 'begun' before a kill can come, the test row before 'finished'."""
  calls, upload, write = [], records.Lines.upload, records.write_run

  def uploaded(self, again=False):
    upload(self, again)
    calls.append(self._path.read_text())

  def written(folder, fields):
    write(folder, fields)
    calls.append(fields['status'])
  monkeypatch.setattr(records.Lines, 'upload', uploaded)
  monkeypatch.setattr(records, 'write_run', written)
  _train(run, tmp_path / 'run')
  assert calls[0] == 'running' and json.loads(calls[1])['event'] == 'begun'
  before = calls[:calls.index('finished')]
  assert any('"split": "test"' in content for content in before) and any('"event": "finished"' in c for c in before)
  assert any('"event": "save"' in content for content in calls[:calls.index(next(c for c in calls if '"test"' in c))])
