"""The runner, with small scripts instead of training runs; tests/test_sweep.py has real runs."""

import io
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from rich.console import Console

from vit_jax import exits, records
from vit_jax.survival import lock
from vit_jax.sweeps import display, jobs, runner

# In one step, as runs write it: the runner may look at any moment, and takes an empty run.json for a damaged one.
FINISH = "import os; open('new', 'w').write('{\"status\": \"finished\"}'); os.replace('new', 'run.json')\n"
TRUNK = FINISH.replace('finished', 'trunk')


class Sweep:
  """Jobs that are scripts, which run in their folders."""

  def __init__(self, path, processes=2):
    self.path, self.processes, self.scripts, self.jobs, self.said = path, processes, {}, [], io.StringIO()
    self.together = None  # jobs of one process; otherwise each has its own

  def add(self, name, script, **fields):
    folder = self.path / name
    folder.mkdir()
    self.jobs.append(jobs.Job(name, str(folder), (), 10, 0, 1.0, 1, **fields))
    (folder / 'job.py').write_text(script)
    return folder

  def run(self):
    command = lambda jobs, share: [sys.executable, '-c', f'import os, runpy; os.chdir({jobs[0].folder!r}); '
                                  "runpy.run_path('job.py')", ','.join(map(str, share))]
    shown = display.Display(Console(file=self.said, width=200))
    self.runner = runner.Runner(self.together or [(job,) for job in self.jobs], self.processes, shown, command)
    return self.runner.run()


@pytest.fixture(name='sweep')
def _sweep(tmp_path, monkeypatch):
  monkeypatch.setattr(runner, '_POLL_SECONDS', 0.01)
  monkeypatch.setattr(runner, '_BUSY_SECONDS', 0.1)
  return Sweep(tmp_path)


def test_a_failing_job_is_reported_and_the_others_continue(sweep, monkeypatch):
  monkeypatch.delenv('PYTHONUNBUFFERED', raising=False)  # with it any program's lines are in their order
  sweep.add('good', FINISH)
  bad = sweep.add('bad', "import sys; print('chatter'); print('error: it broke', file=sys.stderr); sys.exit(1)")
  sweep.add('also-good', FINISH)
  assert sweep.run() == 1 and [job.name for job in sweep.runner.failed] == ['bad']
  said = sweep.said.getvalue()
  assert 'failed    bad: exit code 1' in said and 'error: it broke' in said and str(bad / 'log.txt') in said
  assert said.count('finished  ') == 2
  assert 'chatter' in (bad / 'log.txt').read_text()
  assert records.read_rows(bad / records.EVENTS)[-1]['said'] == 'error: it broke'


@pytest.mark.parametrize('end', ['sys.exit(42)', pytest.param('sys.exit(137)', marks=pytest.mark.slow),
                                 pytest.param('os.kill(os.getpid(), 9)', marks=pytest.mark.slow)])
def test_a_job_that_makes_progress_is_restarted_without_limit(sweep, end):
  times = exits.MAX_RESTARTS + 2
  folder = sweep.add('slow', f"""
import os, sys
step = len(os.listdir('checkpoints')) if os.path.exists('checkpoints') else 0
os.makedirs(f'checkpoints/{{step + 1}}')
if step < {times}:
  {end}
{FINISH}""")
  assert sweep.run() == 0 and len(os.listdir(folder / 'checkpoints')) == times + 1


def test_restarts_without_progress_are_limited(sweep):
  folder = sweep.add('stuck', "import sys; print('again'); sys.exit(42)")
  assert sweep.run() == 1
  assert (folder / 'log.txt').read_text().count('again') == 1 + exits.MAX_RESTARTS
  assert '3 restarts without a newer checkpoint' in sweep.said.getvalue()


def test_branches_start_when_the_trunk_has_reached_their_step(sweep):
  trunk = sweep.add('trunk', f"""
import os, time
{TRUNK}
os.makedirs('checkpoints/4')
while not os.path.exists('../early/run.json'):
  time.sleep(0.01)
os.makedirs('checkpoints/8')
""", saves=(4, 8))
  for name, step in (('late', 8), ('early', 4)):
    sweep.add(name, FINISH, trunk=str(trunk))
    sweep.jobs[-1] = jobs.dataclasses.replace(sweep.jobs[-1], first_step=step)
  assert sweep.run() == 0  # the trunk ends only because `early` ran beside it


def test_branches_of_a_failed_trunk_run_if_it_reached_their_step(sweep):
  trunk = sweep.add('trunk', TRUNK + "import os, sys; os.makedirs('checkpoints/4'); sys.exit(1)", saves=(4, 8))
  for name, step in (('late', 8), ('early', 4)):
    sweep.add(name, FINISH, trunk=str(trunk))
    sweep.jobs[-1] = jobs.dataclasses.replace(sweep.jobs[-1], first_step=step)
  assert sweep.run() == 1
  assert [job.name for job in sweep.runner.failed] == ['trunk', 'late']
  assert 'failed    late: its trunk failed' in sweep.said.getvalue()


def test_the_runner_waits_for_a_folder_that_another_process_holds(sweep):
  sweep.add('shared', f"""
import os, sys
if not os.path.exists('tried'):
  open('tried', 'w')
  sys.exit({lock.BUSY})
{FINISH}""")
  assert sweep.run() == 0
  assert 'another process is training it' in sweep.said.getvalue()


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 42)])
def test_a_signal_is_passed_on_and_waited_for(sweep, number, code):
  folder = sweep.add('long', """
import os, signal, sys, time
def stop(number, frame):
  time.sleep(0.2)
  open(f'stopped-{number}', 'w')
  sys.exit(42)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
open('began', 'w')
while True:
  time.sleep(0.05)
""")
  sweep.processes = 1
  sweep.add('never', FINISH)

  def send():
    while not (folder / 'began').exists():
      time.sleep(0.02)
    os.kill(os.getpid(), number)

  threading.Thread(target=send).start()
  assert sweep.run() == code
  assert (folder / f'stopped-{int(number)}').exists() and not (sweep.path / 'never' / 'run.json').exists()
  assert not sweep.runner.failed


@pytest.mark.parametrize('available, processes', [(range(8), 1), (range(8), 3), (range(2), 2), ([3, 5], 7)])
def test_every_process_has_its_share_of_the_cores(available, processes):
  shares = runner._shares(list(available), processes)
  assert len(shares) == processes and all(shares)
  used = [core for share in shares for core in share]
  assert set(used) == set(available)
  if processes <= len(available):
    assert len(used) == len(set(used))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.skipif(sys.platform != 'linux', reason='prctl')
def test_a_job_ends_with_a_killed_sweep_and_releases_its_folder(tmp_path):
  """The job imports JAX for several seconds, which leaves time to kill the parent first."""
  command = f'[sys.executable, "-m", "vit_jax.sweeps.child", str(os.getpid()), "", {str(tmp_path)!r}, '\
            '"--config=configs/quickstart.py"]'
  code = f'import os, subprocess, sys, time; print(subprocess.Popen({command}).pid, flush=True); time.sleep(100)'
  parent = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
  int(parent.stdout.readline())
  deadline = time.monotonic() + 60
  while not lock.is_held(tmp_path) and time.monotonic() < deadline:
    time.sleep(0.02)
  assert lock.is_held(tmp_path)
  parent.send_signal(signal.SIGKILL)
  parent.wait()
  parent.stdout.close()
  while lock.is_held(tmp_path) and time.monotonic() < deadline:
    time.sleep(0.02)
  assert not lock.is_held(tmp_path)


def test_jobs_that_a_group_does_not_finish_run_alone(sweep):
  """One process trains two jobs, finishes one and fails. The other then fails alone and is reported."""
  sweep.add('good', f"import os\n{FINISH}import sys; os.chdir('../bad'); sys.exit(1)")
  sweep.add('bad', "import sys; print('error: it broke', file=sys.stderr); sys.exit(1)")
  sweep.together = [tuple(sweep.jobs)]
  assert sweep.run() == 1 and [job.name for job in sweep.runner.failed] == ['bad']
  said = sweep.said.getvalue()
  assert said.count('started   good') == 1 and said.count('started   bad') == 2
  assert 'finished  good (1 of' in said and 'failed    bad: exit code 1' in said and 'error: it broke' in said
