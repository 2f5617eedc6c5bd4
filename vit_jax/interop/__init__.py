"""Weights in and out: other programs' files by our names, and ours by theirs."""

import os

from vit_jax.interop import run_folder
from vit_jax.interop.weights import Weights

__all__ = ['Weights', 'read']


def read(source: str | os.PathLike) -> Weights:
  """The weights in a file, a folder or a run.

  Args:
    source: a run folder of `vit_jax.main`.

  Raises:
    UserError: it is not there, or not what it seems to be; the message says what is wrong.
  """
  return run_folder.read(source)
