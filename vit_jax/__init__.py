"""Vision Transformers in JAX, from a config to a trained model, and from many runs to a scaling law.

  import vit_jax

  run = vit_jax.train('quickstart', train={'steps': 200})   # what `vit-jax train` does
  vit_jax.evaluate(run)                                     # scores on test
  vit_jax.predict(run, 'digit.png').classes

What can be called is in `vit_jax.api`. It is imported when it is first used, so that importing this package is cheap.
Some functions have the names of modules, which are the commands (`python -m vit_jax.sweep`): as an attribute of this
package such a name is always the function, and `importlib.import_module` gives the module.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = '0.1.0'
__all__ = ['arrays', 'attention', 'compare', 'evaluate', 'fit', 'plan', 'predict', 'sweep', 'train']

if TYPE_CHECKING:
  from vit_jax.api import arrays, attention, compare, evaluate, fit, plan, predict, sweep, train  # noqa: F401


def __getattr__(name: str) -> Any:
  if name in __all__:
    return getattr(importlib.import_module('.api', __name__), name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])


class _Package(types.ModuleType):
  """Importing a submodule sets it as an attribute, which would hide the function of its name."""

  def __setattr__(self, name: str, value: Any) -> None:
    if not (name in __all__ and isinstance(value, types.ModuleType)):
      super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
