"""--preflight: what the first host of a run does before it trains, done on this machine before anything is sent."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from vit_jax import recipe
from vit_jax.errors import UserError
from vit_jax.launch import place as place_lib
from vit_jax.launch import task as task_lib

_COPIED = ('pyproject.toml', 'README.md', 'LICENSE', 'vit_jax', 'configs', 'experiments')  # as by launch/Dockerfile
_ROOT = pathlib.Path(__file__).resolve().parents[1]
_CONTAINER_HOME = '/home/runner'


def run(request, to_run: Mapping, display) -> None:
  """Tries the last run of each data source of a sweep.

  In a container of the image where Docker runs. Else in a folder that has what the image has, with the packages of this
  interpreter. Pictures in a bucket are read from the bucket, where the hosts see a mount. Other data that only hosts
  see are left out, which is said.

  Raises:
    UserError: a run would have ended before its first step; its own message is printed above.
  """
  image, tried = request.cluster.image if request.cluster and _has_docker() else None, set()
  for task in to_run:
    source = _source(task.programs[-1])
    if source in tried:
      continue
    tried.add(source)
    arguments = [_from_here(word, request.place) for word in task.programs[-1]]
    readable = place_lib.found_from(_data_source(task.programs[-1]), request.place, image is not None)
    argv = task_lib.first(arguments, 'python' if image else sys.executable, without_data=not readable)
    with tempfile.TemporaryDirectory() as folder:
      argv, where = _command(request, image, argv, pathlib.Path(folder))
      display.note(f'preflight   {task.name}, {where}')
      if not readable:
        display.note(f'preflight   without the data, which are read where {request.place} is mounted: the first-... of '
                     'the files tries that')
      environment = os.environ | task_lib.rehearsed_on(request.target.devices) | {'PYTHONPATH': _others()}
      done = subprocess.run(argv, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT)
    for line in done.stdout.splitlines():
      display.note(f'  {line}')
    if done.returncode:
      raise UserError(f'preflight of {task.name}: exit code {done.returncode}; no files were written')


def _others() -> str:
  """PYTHONPATH without this checkout: what is not in the image must not be found."""
  paths = os.environ.get('PYTHONPATH', '').split(os.pathsep)
  return os.pathsep.join(path for path in paths if path and pathlib.Path(path).resolve() != _ROOT)


def _data_source(program: Sequence[str]) -> str:
  """data.source of a run: overridden, or its recipe's."""
  given = {word.partition('=')[0]: word.partition('=')[2] for word in program}
  if (source := given.get('--config.data.source')) is not None:
    return source
  return recipe.load_recipe(given['--config']).data.source


def _source(program: Sequence[str]) -> str:
  """What tells the data of a run: its recipe and its overrides of data.*."""
  return ' '.join(w for w in program if w.startswith(('--config=', '--config.data.source=', '--config.data.data_dir=')))


def _from_here(word, place):
  """An argument with the hosts' folder of data replaced by where this machine finds them."""
  if place is None or word != f'--config.data.data_dir={place.folder}':
    return word
  here = str(place) if place.kind in ('gs', 's3') else place.path if place.kind in ('here', 'host') else place.folder
  return f'--config.data.data_dir={here}'


def _command(request, image, argv, folder):
  """(the command that runs `argv` in a container of an image or else in a folder, where that is in words)."""
  if image:
    environment = [word for name, value in task_lib.rehearsed_on(request.target.devices).items()
                   for word in ('--env', f'{name}={value}')]
    return ['docker', 'run', '--rm', *environment, *_mounts(request.place), image, *argv], f'in a container of {image}'
  for name in _COPIED:
    source = _ROOT / name
    if source.is_dir():
      shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns('__pycache__', 'results'))
    elif source.exists():
      shutil.copy(source, folder / name)
  return argv, 'in a folder with what the image has (no Docker here)'


def _mounts(place):
  """Docker's flags for the data and for the rights to buckets of who runs this."""
  out = []
  if place and place.kind in ('here', 'host'):
    out += ['--volume', f'{place.path}:{place.path}:ro']
  rights = pathlib.Path('~/.config/gcloud').expanduser()
  if rights.is_dir():
    out += ['--volume', f'{rights}:{_CONTAINER_HOME}/.config/gcloud:ro']
  return out


def _has_docker():
  """Whether there is a Docker daemon to talk to."""
  try:
    return subprocess.run(['docker', 'version'], capture_output=True, timeout=20).returncode == 0
  except (OSError, subprocess.TimeoutExpired):
    return False
