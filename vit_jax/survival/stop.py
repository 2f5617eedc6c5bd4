"""Requests to stop: SIGTERM or Ctrl-C is noted at once and acted on between steps."""

import os
import signal
import sys
import threading

import jax

from vit_jax import exits
from vit_jax.parallel import processes

_NOTED = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
  """The run was asked to stop. It is raised where the state can be saved."""


class Stop:
  """A context in which SIGTERM and the first SIGINT are noted; a second SIGINT ends the process at once.

  Ending at once is safe: checkpoints get their name when they are complete, and each line of a log is flushed as it is
  written. A thread reads the signals, because Python runs signal handlers only between two instructions of the main
  thread, which may be in the compiler for minutes.
  """

  def __init__(self):
    self._signals: list[signal.Signals] = []
    self._asked = 0
    self._by_file = False
    # With several processes, JAX handles SIGTERM itself once `jax.distributed.initialize` has run.
    self._noted = _NOTED if jax.process_count() == 1 else (signal.SIGINT,)
    self._handlers, self._pipe, self._old_pipe = {}, (), -1

  def stop_requested(self) -> bool:
    """Whether to save now and end. It is called once after each step, and between the batches of an evaluation.

    Of several processes, perhaps only one has received a signal. All call this at the same points in the same order,
    and JAX makes them agree on one of these points.
    """
    self._asked += 1
    return processes.stop_agreed(self._asked) if jax.process_count() > 1 else bool(self._signals)

  def ask(self) -> None:
    """Asks the run to stop, from another thread (see `stop_file`)."""
    self._by_file = True
    self._note(signal.SIGTERM)
    _print('asked to stop: saving after this step, then stopping')

  def _note(self, number):
    self._signals.append(signal.Signals(number))
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)  # JAX passes it on to the other processes

  @property
  def by_hand(self) -> bool:
    """Whether a person asked: by Ctrl-C, or by a file."""
    return self._by_file or signal.SIGINT in self._signals

  def __enter__(self) -> 'Stop':
    if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
      self._pipe = os.pipe()
      os.set_blocking(self._pipe[1], False)
      self._old_pipe = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
      # The system wakes the thread only if Python has a handler, so there is one that does nothing.
      self._handlers = {number: signal.signal(number, lambda number, frame: None) for number in self._noted}
      threading.Thread(target=self._listen, args=self._pipe[:1], daemon=True).start()
    return self

  def __exit__(self, *exception):
    if self._pipe:
      for number, handler in self._handlers.items():
        signal.signal(number, handler)
      signal.set_wakeup_fd(self._old_pipe)
      os.close(self._pipe[1])  # ends the thread

  def _listen(self, pipe):
    while byte := os.read(pipe, 1):
      number = byte[0]
      if number not in self._noted:
        continue
      if number == signal.SIGINT and signal.SIGINT in self._signals:
        _print('interrupted')
        os._exit(exits.INTERRUPTED)
      self._note(number)
      _print(f'{signal.Signals(number).name}: saving after this step, then stopping'
             + ('; press Ctrl-C again to stop at once' if number == signal.SIGINT else ''))
    os.close(pipe)


def _print(words):
  """Prints a line on stderr past a progress bar, and shows the cursor that the bar has hidden."""
  show_cursor = '\x1b[?25h\r\x1b[K' if sys.stderr.isatty() else ''
  os.write(2, f'{show_cursor}{words}\n'.encode())
