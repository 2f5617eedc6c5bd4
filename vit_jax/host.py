"""The host's memory allocator, set for training on a CPU."""

import ctypes
import ctypes.util

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
  """Lets glibc's malloc keep what a step frees for the next step; elsewhere nothing is done.

  XLA's CPU backend allocates and frees each large buffer once a step. By default malloc gives such memory back to the
  system, and the next step's page faults take up to a third of its time (experiments/allocator).
  """
  try:
    mallopt = ctypes.CDLL(ctypes.util.find_library('c')).mallopt
  except (OSError, AttributeError, TypeError):  # not glibc
    return
  for parameter, value in ((_MMAP_THRESHOLD, 32 << 20), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 256 << 20)):
    mallopt(parameter, value)
