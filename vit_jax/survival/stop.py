"""Being told to stop: SIGTERM or Ctrl-C, noted at once and acted on between steps."""

import os
import signal
import sys
import threading

import jax

from vit_jax import exits
from vit_jax.parallel import processes

_NOTED = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
  """The run was told to stop. What raises it leaves a state that can be saved."""


class Stop:
  """While open, SIGTERM and the first SIGINT are noted; a second SIGINT ends the process at once.

  Ending at once does no harm: checkpoints get their name when they are whole, and each line of a log is handed to the
  system as it is written. A thread reads the signals: Python runs its own handlers only between two instructions of
  the main thread, which may be in the compiler for minutes.
  """

  def __init__(self):
    self._signals: list[signal.Signals] = []
    self._asked = 0
    # Of many processes, JAX listens to SIGTERM itself, from `jax.distributed.initialize` on.
    self._noted = _NOTED if jax.process_count() == 1 else (signal.SIGINT,)
    self._handlers, self._pipe, self._old_pipe = {}, (), -1

  def stop_requested(self) -> bool:
    """Whether to save now and end. Asked once after each step, and between the batches of an evaluation.

    Of many processes only one may have been told. They ask at the same points in the same order, and JAX lets them
    agree on one of these.
    """
    self._asked += 1
    return processes.stop_agreed(self._asked) if jax.process_count() > 1 else bool(self._signals)

  @property
  def by_hand(self) -> bool:
    """Whether it was a person's Ctrl-C."""
    return signal.SIGINT in self._signals

  def __enter__(self) -> 'Stop':
    if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no handlers
      self._pipe = os.pipe()
      os.set_blocking(self._pipe[1], False)
      self._old_pipe = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
      # Only a handler of Python's makes the system wake the thread up, so there is one that does nothing.
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
      if number == signal.SIGINT and self.by_hand:
        _say('interrupted')
        os._exit(exits.INTERRUPTED)
      self._signals.append(signal.Signals(number))
      if jax.process_count() > 1:
        os.kill(os.getpid(), signal.SIGTERM)  # the others hear of that one
      _say(f'{signal.Signals(number).name}: saves after this step and stops'
           + ('; once more to stop at once' if number == signal.SIGINT else ''))
    os.close(pipe)


def _say(words):
  """A line on stderr, past a progress bar, whose cursor it gives back to the terminal."""
  show_cursor = '\x1b[?25h\r\x1b[K' if sys.stderr.isatty() else ''
  os.write(2, f'{show_cursor}{words}\n'.encode())
