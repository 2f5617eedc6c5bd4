"""What a config's field takes: its default, the range of its values, its old name; declared with the field.

  learning_rate: float = option(1e-3, most=1e19)
  beta1: float = option(0.9, below=1)
  clip_norm: float | None = option(1.0, above=0, off=0)

Fields without `option` have the usual range: numbers that are finite and not negative.
"""

import dataclasses
import math
import numbers
import os
from typing import Any

import numpy as np

from vit_jax.errors import UserError

_INT, _FLOAT = 2**31 - 1, float(np.finfo(np.float32).max)  # the most that a device holds
_TINY = float(np.finfo(np.float32).tiny)  # what is smaller counts as 0 on most devices


@dataclasses.dataclass(frozen=True)
class Option:
  """Which numbers a field takes; of a tuple's field, which items."""
  least: float = 0
  most: float | None = None  # None: the largest int32 or float32
  above: float | None = None
  below: float | None = None
  off: float | None = None  # a value outside of the range that switches the option off
  longest: int = 64  # items of a tuple
  hint: str = ''  # what a person may have meant by a wrong value
  was: str | None = None  # the field's old name

  def allows(self, value: int | float) -> bool:
    """Whether a number is right. A float is judged as the float32 that it becomes."""
    most = (_INT if isinstance(value, int) else _FLOAT) if self.most is None else self.most
    if isinstance(value, float):
      if not abs(value) <= _FLOAT or 0 < abs(value) < _TINY:  # NaN is not <= anything
        return False
      value = value if value in (self.least, most) else float(np.float32(value))
    return value == self.off or (self.least <= value <= most and (self.above is None or value > self.above)
                                 and (self.below is None or value < self.below))

  def words(self) -> str:
    """The range, after 'must be'."""
    parts = [] if self.off is None else [f'{self.off:g} (off) or']
    if self.above is not None:
      parts.append('positive' if self.above == 0 else f'above {_short(self.above)}')
    elif self.most is not None and self.below is None:
      parts.append(f'from {_short(self.least)} to {_short(self.most)}')
    else:
      parts.append(f'at least {_short(self.least)}')
    if self.below is not None:
      parts.append(f'and below {_short(self.below)}')
    elif self.most is not None and self.above is not None:
      parts.append(f'and at most {_short(self.most)}')
    return ' '.join(parts)


def option(default: Any, **rules: Any) -> Any:
  """A dataclass's field with a default and the rules of an `Option`."""
  return dataclasses.field(default=default, metadata={'option': Option(**rules)})


def of(field: dataclasses.Field) -> Option:
  """The `Option` of a dataclass's field."""
  return field.metadata.get('option', Option())


def check(config: Any, path: str = '') -> None:
  """Looks at each value of a config dataclass, and of those in it, by itself.

  Raises:
    UserError: a value out of its range: the message has the key, the value and the range.
  """
  for field in dataclasses.fields(config):
    value, name = getattr(config, field.name), f'{path}.{field.name}' if path else field.name
    if dataclasses.is_dataclass(value):
      check(value, name)
      continue
    rule, items = of(field), value if isinstance(value, tuple) else (value,)
    if len(items) > rule.longest:
      raise UserError(f'{name}={_shown(value)}: must have at most {rule.longest} items')
    for item in items:
      if isinstance(item, str) and ('\0' in item or any(len(os.fsencode(part)) > 255 for part in item.split('/'))):
        raise UserError(f'{name}={_shown(value)}: must have no NUL character, and at most 255 bytes between slashes')
      if isinstance(item, numbers.Real) and not isinstance(item, bool) and not rule.allows(item):
        hint = f'; {rule.hint}' if rule.hint else ''
        raise UserError(f'{name}={_shown(value)}: must be {rule.words()}{_unstated(item, rule)}{hint}')


def _unstated(value, rule):
  """The limit that was met, where the range does not state it."""
  if isinstance(value, float):
    if not math.isfinite(value):
      return ', and finite'
    return ', in float32: 1.2e-38 to 3.4e38 in size' if abs(value) > _FLOAT or 0 < abs(value) < _TINY else ''
  return f', at most {_INT:,}' if value > _INT and rule.most is None else ''


def _shown(value):
  text = repr(value)
  return text if len(text) <= 100 else f'{text[:100]} ...'


def _short(number):
  return f'{number:,}' if isinstance(number, int) else f'{number:g}'
