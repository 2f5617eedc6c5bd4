"""Logs in a bucket are seen while a run trains, and a file stops it; a real bucket: tests/test_spot_life.py."""

import threading
import time

import pytest

from vit_jax import durable, records
from vit_jax.survival import stop_file
from vit_jax.survival.beacon import Beacon


def _until(true, seconds=10):
  deadline = time.monotonic() + seconds
  while not true():
    assert time.monotonic() < deadline
    time.sleep(0.01)


def test_logs_are_uploaded_while_the_run_trains(tmp_path, monkeypatch):
  uploads = []
  log = records.Events(tmp_path / 'events.jsonl')
  monkeypatch.setattr(log, 'upload', lambda again=False: uploads.append(again))
  beacon = Beacon('gs://bucket/run', [log], None, seconds=0.01)
  _until(lambda: len(uploads) > 2)
  beacon.close()
  count = len(uploads)
  assert all(uploads) and not beacon._thread.is_alive() and len(uploads) == count


def test_a_file_stops_the_run_once(tmp_path):
  asked = []
  beacon = Beacon(tmp_path, [], lambda: asked.append(threading.current_thread()), seconds=0.01)
  time.sleep(0.05)
  assert not asked
  stop_file.ask(tmp_path)
  _until(lambda: asked)
  time.sleep(0.05)
  beacon.close()
  assert len(asked) == 1


class _Refused(Exception):
  """An error of a store, as gcsfs raises it."""

  def __init__(self, code):
    self.code = code


@pytest.mark.parametrize('error', [_Refused(503), _Refused(429), ConnectionResetError(), TimeoutError()])
def test_a_store_that_does_not_answer_is_asked_again(error, monkeypatch):
  pauses, faults = [], [error] * 3
  monkeypatch.setattr(time, 'sleep', pauses.append)

  def act():
    if faults:
      raise faults.pop()
    return 'content'

  assert durable.patiently(act) == 'content' and len(pauses) == 3
  assert 0 < pauses[0] < pauses[1] < pauses[2]  # growing


@pytest.mark.parametrize('error', [_Refused(404), _Refused(403), FileNotFoundError(), PermissionError(),
                                   OSError(28, 'No space left on device')])
def test_what_another_try_does_not_cure_is_raised_at_once(error, monkeypatch):
  monkeypatch.setattr(time, 'sleep', lambda _: pytest.fail('waited'))
  with pytest.raises(type(error)):
    durable.patiently(lambda: (_ for _ in ()).throw(error))


def test_a_store_that_never_answers(monkeypatch):
  pauses = []
  monkeypatch.setattr(time, 'sleep', pauses.append)
  with pytest.raises(durable.Unreachable, match='does not answer: ConnectionResetError'):
    durable.patiently(lambda: (_ for _ in ()).throw(ConnectionResetError()))
  assert 60 < sum(pauses) < 200
