"""The settings in another program's file, each of which is honoured, known to have no effect, or refused by name.

Readers name every key that they know, with what it means. A key that nobody named is an error, so that a setting that
this project has never heard of cannot be dropped in silence.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from vit_jax.errors import UserError, nearest

_SHOWN = 80


class Entries:
  """A mapping from a file, of which each entry is taken once.

  Attributes:
    where: the file, for messages.
    values: the entries.
  """

  def __init__(self, values: Mapping[str, Any], where: str):
    self.values, self.where = values, where
    self._known: set[str] = set()

  def get(self, key: str, default: Any = None) -> Any:
    """The value of a key, or the default if it is missing or null."""
    self._known.add(key)
    value = self.values.get(key)
    return default if value is None else value

  def choose(self, key: str, meanings: Iterable[tuple[Any, Any]], default: Any) -> Any:
    """What the value of a key means here, by pairs (value, meaning).

    Raises:
      UserError: the value is not in the pairs.
    """
    meanings, value = list(meanings), self.get(key, default)
    for known, meaning in meanings:
      if _equal(known, value):
        return meaning
    raise self.refused(key, f'expected {" or ".join(_short(known) for known, _ in meanings)}')

  def only(self, key: str, *allowed: Any) -> None:
    """Raises UserError unless the value of a key is one of these; the first is the default."""
    self.choose(key, [(value, None) for value in allowed], allowed[0])

  def switched(self, key: str, default: bool = False) -> bool:
    """The value of a key that is true or false."""
    return self.choose(key, [(False, False), (True, True)], default)

  def free(self, *keys: str) -> None:
    """Names keys without an effect on evaluation, or whose effect the tensors show."""
    self._known.update(keys)

  def close(self) -> None:
    """Raises UserError if there is a key that was not named."""
    for key, value in self.values.items():
      if key not in self._known:
        raise UserError(f'{self.where}: {key}={_short(value)}: an entry that this reader does not know'
                        f'{nearest(str(key), self._known)}; it might change what the model computes. If it does not, '
                        'delete it from the file')

  def refused(self, key: str, right: str) -> UserError:
    """The error for a value that is not supported."""
    return UserError(f'{self.where}: {key}={_short(self.values.get(key))}: not supported; {right}')


def _equal(known, value):
  return known == value and isinstance(known, bool) == isinstance(value, bool)


def _short(value):
  text = repr(value)
  return text if len(text) <= _SHOWN else f'{text[:_SHOWN]} ...'
