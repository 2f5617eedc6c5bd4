import os
import signal
import subprocess
import sys
import time

import pytest

from vit_jax import exits
from vit_jax.survival import stop


def _until(condition):
  deadline = time.monotonic() + 30
  while not condition() and time.monotonic() < deadline:
    time.sleep(0.005)
  return condition()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_handlers_are_restored(number, capfd):
  before = signal.getsignal(number)
  with stop.Stop() as noted:
    assert not noted.stop_requested()
    os.kill(os.getpid(), number)
    assert _until(lambda: noted.stop_requested())
    assert noted.by_hand == (number == signal.SIGINT)
    time.sleep(0.1)  # the message is printed after the signal is noted
  assert signal.getsignal(number) is before
  assert f'{number.name}: saving after this step, then stopping' in capfd.readouterr().err


BUSY = '''
import hashlib, sys
from vit_jax.survival import stop
with stop.Stop():
  print('busy', flush=True)
  hashlib.pbkdf2_hmac('sha256', b'x', b'y', 10**9)  # minutes outside of Python, like a compiler
'''


def test_a_second_interrupt_ends_a_process_that_is_busy_outside_of_python():
  process = subprocess.Popen([sys.executable, '-c', BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             env=os.environ | {'JAX_PLATFORMS': 'cpu'})
  try:
    assert process.stdout.readline() == 'busy\n'
    process.send_signal(signal.SIGINT)
    assert any('again to stop at once' in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == exits.INTERRUPTED
  finally:
    process.kill()
    process.communicate()
