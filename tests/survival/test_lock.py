import os
import subprocess
import sys

import pytest

from vit_jax.errors import UserError
from vit_jax.survival import lock

HOLD = ("import sys; from vit_jax.survival import lock\n"
        "with lock.hold(sys.argv[1]):\n  print('held', flush=True); sys.stdin.read()")


@pytest.fixture(name='other')
def _other(tmp_path):
  """A process that holds the lock of a folder."""
  process = subprocess.Popen([sys.executable, '-c', HOLD, tmp_path / 'run'], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, text=True)
  assert process.stdout.readline() == 'held\n'
  yield process
  process.kill()
  process.communicate()


def test_a_lock_that_another_process_holds_is_refused_and_its_holder_named(other, tmp_path):
  with pytest.raises(UserError, match=f'another process is training there .process {other.pid} on '):
    with lock.hold(tmp_path / 'run'):
      pass
  assert lock.is_held(tmp_path / 'run')


def test_a_killed_process_holds_no_lock(other, tmp_path):
  other.kill()
  other.wait()
  assert not lock.is_held(tmp_path / 'run')
  with lock.hold(tmp_path / 'run'):
    assert lock.is_held(tmp_path / 'run')
  assert not lock.is_held(tmp_path / 'run')


def test_the_process_that_holds_a_lock_may_hold_it_again(tmp_path):
  with lock.take(tmp_path):
    assert lock.take(tmp_path) is None
    with lock.hold(tmp_path):
      pass
    assert lock.is_held(tmp_path)  # still held by the outer block
  with lock.hold(tmp_path):
    pass


def test_a_bucket_is_locked_on_this_machine(tmp_path, monkeypatch):
  monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
  with lock.hold('gs://bucket/run'):
    assert lock.is_held('gs://bucket/run/') and not lock.is_held('gs://bucket/other')
    (file,) = os.listdir(tmp_path)
    assert file.endswith('.lock')
