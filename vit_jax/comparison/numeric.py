"""How far two numbers, or two arrays, are apart."""

import math
from typing import Any

import numpy as np


def same(a: Any, b: Any) -> bool:
  """Whether two JSON values are equal. NaN, which other programs write, equals itself here."""
  return a == b or (a != a and b != b)


def apart(a: Any, b: Any) -> tuple[float | None, float | None]:
  """(absolute, relative) difference of two JSON values. Both are None if either value is not a finite number.

  The relative difference is measured against the larger magnitude. It does not depend on the order, and is at most 2.
  """
  a, b = _number(a), _number(b)
  if a is None or b is None or not math.isfinite(a - b):
    return None, None
  absolute = abs(a - b)
  return absolute, absolute / max(abs(a), abs(b)) if absolute else 0.0


def arrays_apart(a: np.ndarray, b: np.ndarray) -> tuple[float | None, float | None, int]:
  """(absolute, relative, elements) of two arrays of one shape and dtype.

  Returns:
    absolute: the largest difference of two elements. None if elements that differ include one that is not finite.
    relative: that, divided by the largest magnitude in either array. Element by element it would be 2 for nearly every
      array, because some element near zero has changed its sign.
    elements: how many differ in any bit. -0 and 0 count as different, although their difference is 0.
  """
  bits = lambda array: np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(array.size, array.dtype.itemsize)
  differing = (bits(a) != bits(b)).any(axis=1)
  a, b = (array.reshape(-1).astype(np.float64) for array in (a, b))
  if not np.isfinite(a[differing]).all() or not np.isfinite(b[differing]).all():
    return None, None, int(differing.sum())
  absolute = float(np.abs(a[differing] - b[differing]).max(initial=0.0))
  magnitude = max(float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in (a, b))
  return absolute, absolute / magnitude if absolute else 0.0, int(differing.sum())


def beyond(relative: float | None, tolerance: float) -> bool:
  """Whether two values that are not the same count as different. They always do if they have no relative difference."""
  return relative is None or not tolerance or relative > tolerance


def _number(value):
  """A finite number, else None."""
  if not isinstance(value, (int, float)) or isinstance(value, bool):
    return None
  try:
    return float(value) if math.isfinite(value) else None
  except OverflowError:  # an integer of hundreds of digits
    return None
