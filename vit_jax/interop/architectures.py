"""What the names of timm's architectures mean, without timm.

A config.json of timm has a name, such as 'vit_base_patch16_gap_224', and the arguments that differ from what the name
stands for. timm_architectures.json, written by experiments/interop/architectures.py, has the class and the arguments
behind each name: `["CLASS", {"ARGUMENT": value}]`. A layer is written as the name of its class, and functools.partial
as NAME(key=value).
"""

import functools
import importlib.resources
import json
from typing import Any

from vit_jax.errors import UserError, nearest

_TABLE = 'timm_architectures.json'


@functools.cache
def table() -> dict[str, tuple[str, dict[str, Any]]]:
  """{architecture: (class, arguments)}."""
  text = importlib.resources.files('vit_jax.interop').joinpath(_TABLE).read_text()
  return {name: (kind, arguments) for name, (kind, arguments) in json.loads(text).items()}


def meaning(architecture: object, where: str) -> tuple[str, dict[str, Any]]:
  """(class, arguments) of an architecture. A tag, as in 'resnet50.a1_in1k', has no meaning of its own.

  Raises:
    UserError: the name is not known.
  """
  name = str(architecture).partition('.')[0]
  if name not in table():
    raise UserError(f'{where}: architecture={architecture!r}: not an architecture of timm that this project knows'
                    f'{nearest(name, table())}')
  return table()[name]
