"""How processes end: the exit codes of every command, and what is started again.

  0        done
  1        an error that the message explains: the next try would meet it again
  42       told to stop (SIGTERM or Ctrl-C), and saved: the same command goes on
  130      stopped at once by a second Ctrl-C
  134      another process of the run was lost: the same command goes on
"""

PREEMPTED = 42
INTERRUPTED = 130  # 128 + SIGINT, as shells count
LOST = 134  # 128 + SIGABRT: what JAX ends a process with when it misses the heartbeat of another
RETRIED = (PREEMPTED, *range(128, 256))  # an end by a signal, or a request to go on elsewhere
MAX_RESTARTS = 3  # without a newer checkpoint


def retried(code: int) -> bool:
  """Whether a process that ended so is started again; subprocess counts an end by a signal below 0."""
  return code < 0 or code in RETRIED
