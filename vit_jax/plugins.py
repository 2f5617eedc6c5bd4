"""Parts that are found by name: those of this package, and those of yours, as package.module:NAME."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from vit_jax.errors import UserError, nearest


def find(what: str, name: str, known: Mapping[str, Any], fits: Callable[[Any], bool], kind: str,
         noun: str | None = None) -> Any:
  """The part of that name.

  Args:
    what: what it is, for messages, such as 'objective'.
    name: a key of `known`, or package.module:NAME of something that can be imported, as from the current folder.
    known: the parts of this package.
    fits: whether an object is such a part.
    kind: what it must be, for messages.
    noun: the words for `what` in messages; None: the same.

  Raises:
    UserError: there is none of that name, its module cannot be imported, or it is something else.
  """
  module, colon, attribute = name.partition(':')
  if not colon:
    if name not in known:
      raise UserError(f'{what}={name!r}: no such {noun or what}{nearest(name, known)}')
    return known[name]
  try:
    found = getattr(importlib.import_module(module), attribute)
  except ImportError as error:
    raise UserError(f'{what}={name!r}: cannot import {module} ({error}); modules are looked for in the current folder '
                    'and in installed packages') from error
  except (AttributeError, ValueError) as error:
    raise UserError(f'{what}={name!r}: {module} has no {attribute!r}; expected package.module:NAME') from error
  except Exception as error:
    raise UserError(f'{what}={name!r}: {module} raises {type(error).__name__} as it is imported: {error}') from error
  if not fits(found):
    raise UserError(f'{what}={name!r}: expected {kind}, got {type(found).__name__}')
  return found
