"""Real processes with a replacement of vit_jax.main, which prints its arguments and exits as they say."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from vit_jax.launch.task import Task

ROOT = pathlib.Path(__file__).parents[2]
MAIN = '''
import os, signal, sys, time

def save(number, frame):
  sys.exit(42)

signal.signal(signal.SIGTERM, save)
print(sys.argv[1:], flush=True)
if '--wait' in sys.argv:
  time.sleep(60)
if '--kill' in sys.argv:
  os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(sys.argv[-1]) if sys.argv[-1].isdigit() else 0)
'''


@pytest.fixture(name='start')
def _start(tmp_path):
  """A function that starts the process of a sequence: start(('--a',), ('--b',))."""
  package = tmp_path / 'vit_jax'
  (package / 'launch').mkdir(parents=True)
  for name in ('__init__.py', 'launch/__init__.py', 'launch/task.py', 'launch/sequence.py'):
    (package / name).write_text((ROOT / 'vit_jax' / name).read_text())
  (package / 'main.py').write_text(MAIN)

  def start(*programs):
    return subprocess.Popen(Task('x', 'y', programs).argv(sys.executable), cwd=tmp_path, text=True,
                            stdout=subprocess.PIPE, env={**os.environ, 'PYTHONPATH': str(tmp_path)})
  return start


def test_runs_are_started_in_sequence_with_their_arguments(start):
  process = start(('--a=1 2', '--b="; rm -rf /'), ('--c',))
  assert process.communicate()[0].splitlines() == [str(['--a=1 2', '--b="; rm -rf /']), "['--c']"]
  assert process.returncode == 0


@pytest.mark.parametrize('last, code', [(('--a', '1'), 1), (('--a', '42'), 42), (('--kill',), 128 + signal.SIGKILL)])
def test_the_first_failure_ends_the_sequence(start, last, code):
  process = start(('--first',), last, ('--never',))
  assert len(process.communicate()[0].splitlines()) == 2 and process.returncode == code


def test_sigterm_reaches_the_run_which_saves(start):
  process = start(('--wait',), ('--never',))
  assert '--wait' in process.stdout.readline()
  process.send_signal(signal.SIGTERM)
  assert process.communicate()[0] == '' and process.returncode == 42
