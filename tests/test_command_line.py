"""A program that is forked is the program that is started: what it prints, where, and how it ends."""

import command_line
import pytest

PROGRAM = '''
import os, sys, threading, atexit
print(sys.argv[1:], os.getcwd(), os.environ.get('GIVEN'), __name__, sys.path[0] == os.getcwd())
atexit.register(print, 'at exit')
threading.Timer(0.1, print, ['from a thread']).start()
what = sys.argv[1]
if what == 'raise':
  raise KeyError('spoken')
if what == 'kill':
  sys.stdout.flush()
  os.kill(os.getpid(), 9)
if what == 'words':
  sys.exit('in words')
sys.exit(int(what))
'''


@pytest.fixture(name='folder', scope='module')
def _folder(tmp_path_factory):
  """A folder that a program of vit_jax cannot be in; its module is found through the working directory."""
  folder = tmp_path_factory.mktemp('programs')
  (folder / 'vit_jax_odd.py').write_text(PROGRAM)
  return folder


@pytest.mark.parametrize('what, code', [('0', 0), ('42', 42), ('raise', 1), ('words', 1), ('kill', -9)])
def test_a_fork_is_the_process(folder, monkeypatch, what, code):
  monkeypatch.setattr(command_line, 'module', lambda program: 'vit_jax_odd')
  done = [run('odd', what, 'two words', env=command_line.ON_CPU | {'GIVEN': 'yes'}, cwd=folder)
          for run in (command_line.run, command_line.run_process)]
  assert done[0].returncode == done[1].returncode == code, done
  assert done[0].stdout == done[1].stdout and f"'two words'] {folder} yes __main__ True" in done[0].stdout
  assert done[0].stderr.splitlines()[-1:] == done[1].stderr.splitlines()[-1:]
  if what != 'kill':
    assert done[0].stdout.splitlines()[-1] == 'at exit' and 'from a thread' in done[0].stdout


def test_a_fork_leaves_nothing_for_the_next(folder, monkeypatch):
  monkeypatch.setattr(command_line, 'module', lambda program: 'vit_jax_odd')
  command_line.run('odd', '0', env=command_line.ON_CPU | {'GIVEN': 'yes'}, cwd=folder)
  assert f'{folder} None ' in command_line.run('odd', '0', cwd=folder).stdout
