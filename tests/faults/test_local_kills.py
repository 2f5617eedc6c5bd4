"""The local tier with real processes that are killed: at most the interval is lost, and the end is the same."""

import signal

import pytest
from fault_runs import end, events

from vit_jax import records

pytestmark = pytest.mark.slow  # seconds each, with two or more processes per test


def test_after_a_kill_at_most_the_interval_is_lost(faults, assert_same_end, tmp_path):
  workdir, local = tmp_path / 'run', tmp_path / 'local'
  flags = (f'--config.system.local_dir={local}', '--config.system.local_every=5', '--config.system.save_every=1000')
  saved = lambda: _steps(local, '0-of-1')
  process = faults.start(workdir, *flags)
  assert faults.until(process, saved)
  process.kill()
  process.communicate()
  newest = saved()[-1]
  assert not records.saved_steps(workdir)
  code, out, err = faults.run(workdir, *flags)
  assert code == 0, err
  assert f'resumed at step {newest} of ' in out and 'is that of a local checkpoint (system.local_dir)' in out
  assert events(workdir, 'local_save') and not list(local.iterdir())
  assert_same_end(workdir)


def test_a_local_folder_that_cannot_be_written_does_not_stop_a_run(faults, assert_same_end, tmp_path):
  code, out, err = faults.run(tmp_path / 'run', f'--config.system.local_dir={faults.recipe}')
  assert code == 0 and 'The run goes on without a local tier' in ' '.join(out.split()) and 'Traceback' not in err, err
  assert_same_end(tmp_path / 'run')


def test_two_processes_resume_from_a_step_that_both_have(faults, tmp_path):
  local = tmp_path / 'local'
  flags = (f'--config.system.local_dir={local}', '--config.system.local_every=5', '--config.system.save_every=40')
  workdir, whole = tmp_path / 'run', tmp_path / 'whole'
  assert _codes(faults.start_many(whole, 2)) == [0, 0]

  started = faults.start_many(workdir, 2, *flags)
  assert faults.until(started[0], lambda: max(_steps(local, '0-of-2'), default=0) > 45)
  assert _codes(started, kill=True) == [-signal.SIGKILL] * 2
  step = max(set(_steps(local, '0-of-2')) & set(_steps(local, '1-of-2')))
  started = faults.start_many(workdir, 2, *flags)
  outputs = [process.communicate(timeout=300) for process in started]
  assert [process.returncode for process in started] == [0, 0], outputs
  assert f'resumed at step {step} ' in outputs[0][0] and not list(local.iterdir())
  assert end(workdir) == end(whole)


def _steps(local, process):
  return sorted(int(path.name) for path in local.glob(f'vit_jax-*/*/{process}/*') if path.name.isdecimal())


def _codes(started, kill=False):
  for process in started:
    if kill:
      process.kill()
  for process in started:
    process.communicate(timeout=300)
  return [process.returncode for process in started]
