"""Signals: the work done is saved, and the run ends as an undisturbed one."""

import signal
import time

import pytest
from fault_runs import STEPS, events

from vit_jax import records

pytestmark = pytest.mark.slow  # seconds each, with one to three processes per test


def _rows(workdir):
  return records.read_rows(workdir / 'metrics.jsonl') if workdir.exists() else []


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_saves_its_step_and_resumes_there(faults, assert_same_end, tmp_path, number):
  process = faults.start(tmp_path / 'run')
  assert faults.until(process, lambda: len(_rows(tmp_path / 'run')) > 3)
  process.send_signal(number)
  out, err = process.communicate(timeout=120)
  assert process.returncode == 42 and 'the same command resumes the run' in out and 'Traceback' not in err, err
  step = records.saved_steps(tmp_path / 'run')[-1]
  stopped, = events(tmp_path / 'run', 'stopped')
  assert stopped['step'] == step and stopped['by_hand'] == (number == signal.SIGINT)
  assert f'saved at step {step}' in out and _rows(tmp_path / 'run')[-1]['step'] <= step
  code, out, _ = faults.run(tmp_path / 'run')
  assert code == 0 and f'resumed at step {step} of {STEPS}' in out
  assert not (tmp_path / 'run' / 'metrics.discarded.jsonl').exists()  # no step was repeated
  assert_same_end(tmp_path / 'run')


def test_an_interrupted_evaluation_is_repeated(faults, assert_same_end, tmp_path):
  process = faults.start(tmp_path / 'run', cached=False)
  assert faults.until(process, lambda: [row for row in _rows(tmp_path / 'run') if row['step'] == 49])
  time.sleep(0.05)  # the evaluation after step 50 compiles its step, for a second or more
  process.send_signal(signal.SIGTERM)
  assert process.wait(120) == 42
  process.communicate()
  assert records.saved_steps(tmp_path / 'run')[-1] == 50
  assert not [row for row in _rows(tmp_path / 'run') if row['split'] == 'val']
  assert faults.run(tmp_path / 'run')[0] == 0
  assert_same_end(tmp_path / 'run')


def test_a_run_stopped_during_compilation_ends_soon_and_starts_again(faults, assert_same_end, tmp_path):
  process = faults.start(tmp_path / 'run', cached=False)
  assert faults.until(process, lambda: (tmp_path / 'run').exists() and events(tmp_path / 'run', 'start'))
  process.send_signal(signal.SIGTERM)
  assert process.wait(120) == 42
  process.communicate()
  assert len(_rows(tmp_path / 'run')) <= 1
  assert faults.run(tmp_path / 'run')[0] == 0
  assert_same_end(tmp_path / 'run')


def test_a_second_interrupt_stops_at_once_without_harm(faults, assert_same_end, tmp_path):
  process = faults.start(tmp_path / 'run', cached=False)
  assert faults.until(process, lambda: (tmp_path / 'run').exists() and events(tmp_path / 'run', 'start'))
  process.send_signal(signal.SIGINT)
  assert 'again to stop at once' in process.stderr.readline()
  process.send_signal(signal.SIGINT)
  assert process.wait(5) == 130
  process.communicate()
  assert faults.run(tmp_path / 'run')[0] == 0
  assert_same_end(tmp_path / 'run')


def test_a_killed_run_resumes_from_its_last_checkpoint(faults, assert_same_end, tmp_path):
  for rows in (5, 10, 15):
    process = faults.start(tmp_path / 'run')
    faults.until(process, lambda rows=rows: len(_rows(tmp_path / 'run')) >= rows)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
  code, out, err = faults.run(tmp_path / 'run')
  assert code == 0, err
  assert 'resumed at step ' in out and len(events(tmp_path / 'run', 'begun')) == 4
  assert_same_end(tmp_path / 'run')
  left = [p.name for p in (tmp_path / 'run' / 'checkpoints').iterdir()]
  assert all(name.isdigit() for name in left), left
