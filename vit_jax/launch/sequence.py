"""Runs several runs in sequence: python -m vit_jax.launch.sequence ARGUMENTS... then ARGUMENTS... then ...

Each run is a separate process, python -m vit_jax.main ARGUMENTS... The first one that fails ends the sequence with its
exit code. This replaces `&&` in a shell, which as the first process of a container would not forward the cluster's
SIGTERM. Here the signal reaches the run, which saves, and the exit code of the run reaches the cluster.
"""

import signal
import subprocess
import sys

from vit_jax.launch.task import SEPARATOR


class _Sequence:
  """Runs programs until one fails or SIGTERM arrives."""

  def __init__(self):
    self._process, self._stopped = None, False
    signal.signal(signal.SIGTERM, self._stop)

  def run(self, programs: list[list[str]]) -> int:
    """Runs the programs; returns the exit code of the last one started, or 128 + signal if a signal killed it."""
    for program in programs:
      signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until there is a process to forward it to
      if self._stopped:
        return 128 + signal.SIGTERM
      self._process = subprocess.Popen([sys.executable, '-m', 'vit_jax.main', *program], preexec_fn=_unblock)
      _unblock()
      if code := self._process.wait():
        return 128 - code if code < 0 else code
    return 0

  def _stop(self, number, frame):
    self._stopped = True
    if self._process:
      self._process.send_signal(number)


def _unblock():
  signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _split(words):
  """['a', 'then', 'b', 'c'] -> [['a'], ['b', 'c']]"""
  programs = [[]]
  for word in words:
    if word == SEPARATOR:
      programs.append([])
    else:
      programs[-1].append(word)
  return programs


if __name__ == '__main__':
  sys.exit(_Sequence().run(_split(sys.argv[1:])))
