"""A thread of a run that shows its logs to the world while it trains, and looks for a request to stop.

Object stores cannot append. Without this thread the logs of a run in a bucket would be uploaded only with checkpoints,
and a process that is killed would leave no trace of what it did since. The time at which events.jsonl was uploaded also
says that the run is alive.
"""

import os
import threading
from collections.abc import Callable, Sequence

from vit_jax.records import Lines
from vit_jax.survival import stop_file

REMOTE_SECONDS, LOCAL_SECONDS = 30.0, 5.0
_FIRST_LOOK_SECONDS = 1.0


class Beacon:
  """Every few seconds, uploads the logs of a run in a bucket, and asks it to stop where `stop_file` says so."""

  def __init__(self, folder: os.PathLike, logs: Sequence[Lines], stop: Callable[[], None] | None,
               seconds: float | None = None):
    """Starts the thread.

    Args:
      folder: the run folder.
      logs: what is uploaded; the last, the events, even where nothing is new.
      stop: is called once, from the thread, when the run is asked to stop; None: nobody looks.
      seconds: between two looks; None: 30 for a bucket, 5 for a local folder.
    """
    self._folder, self._logs, self._stop = folder, logs, stop
    self._remote = '://' in os.fspath(folder)
    self._seconds = seconds or (REMOTE_SECONDS if self._remote else LOCAL_SECONDS)
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def _run(self):
    pause = min(_FIRST_LOOK_SECONDS, self._seconds)
    while not self._ended.wait(pause):
      pause = self._seconds
      try:
        if self._remote:
          for log in self._logs:
            log.upload(again=log is self._logs[-1])
        if self._stop and stop_file.is_asked(self._folder):
          self._stop, stop = None, self._stop
          stop()
      except Exception:  # of a network or a disk: the next look may succeed, and saves report what does not pass
        continue

  def close(self) -> None:
    """Ends the thread; returns when it has uploaded its last."""
    self._ended.set()
    self._thread.join()
