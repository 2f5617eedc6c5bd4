"""Damaged checkpoints, a full disk, a second process: each is reported, and nothing is lost."""

import contextlib
import os
import random
import shutil
import subprocess

import command_line
import pytest
from fault_runs import STEPS, events

from vit_jax import records

pytestmark = pytest.mark.slow  # seconds each, with one to three processes per test


def _interrupted(undisturbed, workdir):
  """A copy of the finished run's folder as it was before its end: two good checkpoints, and steps left to do."""
  shutil.copytree(undisturbed, workdir)
  run = records.read_run(workdir)
  run.pop('results')
  records.write_run(workdir, run | {'status': 'running'})
  return records.saved_steps(workdir)


def _flip(workdir, newest):
  """Flips one bit that matters: most bytes of these files are old versions of their index, or padding."""
  rng, arrays = random.Random(0), command_line.final_arrays(workdir)
  files = sorted((newest / 'state').rglob('d/*'))
  for _ in range(300):
    path = rng.choice(files)
    content = path.read_bytes()
    at = rng.randrange(len(content))
    path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1:])
    with contextlib.suppress(ValueError):  # tensorstore's own checks
      if command_line.final_arrays(workdir) != arrays:
        return
    path.write_bytes(content)
  raise AssertionError('no bit changes an array')


def _damage(workdir, newest, kind):
  if kind == 'flipped bit':
    _flip(workdir, newest)
  elif kind == 'truncated':
    largest = max((path for path in (newest / 'state').rglob('*') if path.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, 1000)
  else:
    shutil.rmtree(newest / 'state')


@pytest.mark.parametrize('kind', ['flipped bit', 'truncated', 'missing'])
def test_a_damaged_checkpoint_is_reported_and_the_end_is_the_same(faults, undisturbed, assert_same_end, tmp_path, kind):
  workdir = tmp_path / 'run'
  *_, before, newest = _interrupted(undisturbed, workdir)
  _damage(workdir, workdir / 'checkpoints' / str(newest), kind)
  code, out, err = faults.run(workdir)
  assert code == 0 and 'Traceback' not in err, err
  assert f'the checkpoint of step {newest} cannot be used: ' in out and f'resumed at step {before}' in out
  damaged, = events(workdir, 'damaged')
  assert damaged['step'] == newest and damaged['why']
  assert (workdir / 'checkpoints' / f'damaged-{newest}').is_dir()
  assert_same_end(workdir)


def test_after_a_change_of_the_log_the_run_resumes_before_it(faults, undisturbed, assert_same_end, tmp_path):
  workdir = tmp_path / 'run'
  *_, before, newest = _interrupted(undisturbed, workdir)
  lines = (workdir / 'metrics.jsonl').read_bytes().splitlines(keepends=True)
  at = next(i for i, row in enumerate(records.read_rows(workdir / 'metrics.jsonl')) if row['step'] > before)
  lines[at] = lines[at].replace(b'"loss": ', b'"loss": 1')
  (workdir / 'metrics.jsonl').write_bytes(b''.join(lines))
  code, out, err = faults.run(workdir)
  assert code == 0 and 'metrics.jsonl has changed' in out, err
  assert_same_end(workdir)


def test_a_full_disk_is_reported_and_the_same_command_resumes(faults, assert_same_end, tmp_path):
  disk = tmp_path / 'disk'
  disk.mkdir()
  mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', disk], capture_output=True, check=False)
  if mounted.returncode:
    pytest.skip('cannot mount a tmpfs here')
  try:
    ballast = disk / 'ballast'
    ballast.write_bytes(bytes(1 << 20))
    process = faults.start(disk / 'run')
    faults.until(process, lambda: records.saved_steps(disk / 'run'))
    with open(ballast, 'ab', buffering=0) as file:
      while process.poll() is None:
        try:
          file.write(bytes(4096))
        except OSError:  # full, until a checkpoint is deleted
          pass
    out, err = process.communicate()
    assert process.returncode == 1 and 'Traceback' not in err, err
    assert 'is full: ' in err and 'a checkpoint takes' in err and 'resumes at step' in err
    step = records.saved_steps(disk / 'run')[-1]
    rows = records.read_rows(disk / 'run' / 'metrics.jsonl')
    assert rows and (disk / 'run' / 'metrics.jsonl').read_bytes().endswith(b'\n')
    ballast.unlink()
    code, out, err = faults.run(disk / 'run')
    assert code == 0 and f'resumed at step {step} of {STEPS}' in out, err
    assert_same_end(disk / 'run')
  finally:
    subprocess.run(['umount', '-l', disk], check=True)


def test_a_second_process_is_refused_while_the_first_runs(faults, tmp_path):
  first = faults.start(tmp_path / 'run', '--config.train.steps=1000000', '--config.system.log_every=100')
  assert faults.until(first, lambda: (tmp_path / 'run').exists() and events(tmp_path / 'run', 'start'))
  code, _, err = faults.run(tmp_path / 'run', '--config.train.steps=1000000', '--config.system.log_every=100')
  assert code == 1 and f'another process is training there (process {first.pid} on ' in err
  first.kill()
  first.communicate()


def test_restarts_without_progress_end_the_run(faults, tmp_path):
  never = ('--config.system.save_every=1000000', '--config.evaluate.every=1000000')
  begun = lambda: events(tmp_path / 'run', 'begun') if (tmp_path / 'run').exists() else []
  for tries in range(4):
    process = faults.start(tmp_path / 'run', *never)
    assert faults.until(process, lambda tries=tries: len(begun()) > tries)
    process.kill()
    process.communicate()
  code, _, err = faults.run(tmp_path / 'run', *never)
  assert code == 1 and '3 restarts made no checkpoint after step 0' in err and 'Traceback' not in err, err
