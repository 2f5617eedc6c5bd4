"""A file in a run's folder that asks the run to save and end, and not to begin again while it is there.

It works from any machine that can write to the folder, without the tools of the cluster on which the run is.
"""

import os
import time

from etils import epath

from vit_jax import commands, durable
from vit_jax.errors import UserError

NAME = 'stop'


def ask(folder: os.PathLike | str) -> None:
  """Asks the run in a folder to stop. The run need not have begun."""
  durable.write(_file(folder), f'asked at {time.strftime("%Y-%m-%d %H:%M:%S")}\n')


def take_back(folder: os.PathLike | str) -> bool:
  """Removes the request; returns whether there was one."""
  there = is_asked(folder)
  if there:
    _file(folder).unlink()
  return there


def is_asked(folder: os.PathLike | str) -> bool:
  """Whether the run in a folder is asked to stop."""
  return _file(folder).exists()


def refuse(folder: os.PathLike | str) -> None:
  """Raises UserError where the run is asked to stop: the exit code is final, so that no cluster starts it again."""
  if is_asked(folder):
    arguments = f'--unstop={epath.Path(folder).name} --workdir={os.fspath(epath.Path(folder).parent)}'
    raise UserError(f'{_file(folder)} asks this run to stop. To continue it, remove that file '
                    f'({commands.written("sweep", arguments)}), and start it again')


def _file(folder):
  return epath.Path(folder) / NAME
