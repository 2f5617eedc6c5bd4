"""The exit codes of all commands, and which of them are retried.

  0        success
  1        an error, explained by the message; a retry would fail again
  42       stopped by SIGTERM or Ctrl-C, and saved; the same command resumes
  130      stopped immediately by a second Ctrl-C
  134      another process of the run, or its bucket, was lost; the same command resumes
"""

PREEMPTED = 42
INTERRUPTED = 130  # 128 + SIGINT, as in shells
LOST = 134  # 128 + SIGABRT, with which JAX ends a process that misses the heartbeat of another; see durable.Unreachable
RETRIED = (PREEMPTED, *range(128, 256))  # preempted, or ended by a signal
MAX_RESTARTS = 3  # restarts in a row without a newer checkpoint


def retried(code: int) -> bool:
  """Whether a process with this exit code is restarted. `subprocess` reports an end by a signal as a negative code."""
  return code < 0 or code in RETRIED
