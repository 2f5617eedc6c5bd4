"""SkyPilot managed jobs for Cloud TPU VMs, which the TPU Research Cloud offers: https://docs.skypilot.co.

SkyPilot copies this repository to every host of the slice, runs `setup` and then `run` on each host. It starts a new
slice if the slice is preempted, or if a host exits with one of `exits.RETRIED`. `setup` runs again on a new slice.
"""

import os
import shlex
from collections.abc import Sequence
from typing import Any

from vit_jax import exits
from vit_jax.cost.slices import GENERATIONS, Slice
from vit_jax.errors import UserError
from vit_jax.launch import task as task_lib
from vit_jax.launch.place import MOUNT, Place
from vit_jax.launch.task import ENVIRONMENT, Task

# uv installs the Python and the package versions that pyproject.toml requires, whatever the machine has: about 1 GB on
# a new machine, and nothing on one that has them. Machines of a lost slice are gone, so each recovery installs again.
_SETUP = '''set -e
python3 -m uv --version >/dev/null 2>&1 || python3 -m pip install --quiet uv
python3 -m uv sync --quiet --python 3.11 --extra tpu
'''
_PYTHON = '.venv/bin/python'
_ERRAND = {'infra': 'gcp', 'cpus': '8+', 'disk_size': 512}  # GB, for data that TFDS downloads


def check(target: Slice, place: Place | None) -> None:
  """Raises UserError for what Cloud TPU VMs or SkyPilot do not support."""
  with_vms = [name for name, generation in GENERATIONS.items() if generation.vm_type]
  if target.generation not in with_vms:
    raise UserError(f'--tpu={target.name}: expected a Cloud TPU VM ({", ".join(with_vms)}); {target.generation} is '
                    'available only on GKE: use --launcher=jobset')
  if target.count > 1:
    raise UserError(f'--num_slices={target.count}: SkyPilot supports only 1; use --launcher=jobset for more')
  if target.host_chips:
    raise UserError(f'--chips_per_host={target.host_chips}: only with --launcher=jobset; the Cloud TPU API chooses')
  if place and place.kind not in ('gs', 's3', 'here'):
    raise UserError(f'--data_dir={place}: SkyPilot starts new machines, which have no such place. Give '
                    'gs://BUCKET/FOLDER, s3://BUCKET/FOLDER, or /FOLDER of this machine, which is copied to every host')
  if place and place.kind == 'here' and not os.path.isdir(place.path):
    raise UserError(f'--data_dir={place}: there is no such folder on this machine, from which SkyPilot copies it')


def render(task: Task, target: Slice, place: Place | None = None, *, spot: bool = False) -> dict[str, Any]:
  """The managed job of a task. See `jobset.render`."""
  generation = GENERATIONS[target.generation]
  resources = {
      'infra': 'gcp',
      'accelerators': f'tpu-{generation.vm_type}-{target.number}',
      'accelerator_args': {'runtime_version': generation.vm_runtime},
      'use_spot': spot,
      'job_recovery': {'max_restarts_on_errors': 0, 'recover_on_exit_codes': list(exits.RETRIED)},
  }
  return _job(task.label, resources, place, ENVIRONMENT, task.argv(_PYTHON))


def first(arguments: Sequence[str], devices: int, place: Place | None, name: str) -> dict[str, Any]:
  """The job that tries the arguments of a run on a CPU, without training. See `errands.first`."""
  return _job(name, _ERRAND, place, task_lib.rehearsed_on(devices), task_lib.first(arguments, _PYTHON))


def preparation(source: str, place: Place, name: str) -> dict[str, Any]:
  """The job that prepares and indexes a data source in the place of the data. See `errands.preparation`."""
  argv = task_lib.preparation(source, place.folder, _PYTHON, ['python3', '-m', 'uv'])
  return _job(name, _ERRAND, place, {'JAX_PLATFORMS': 'cpu'}, argv)


def _job(name, resources, place, environment, argv):
  return {
      'name': name,
      'resources': dict(resources),
      'workdir': '.',
      **({'file_mounts': {MOUNT: _source(place)}} if place else {}),
      'envs': dict(environment),
      'setup': _SETUP,
      'run': f'exec {shlex.join(argv)}\n',
  }


def _source(place):
  """What SkyPilot shows at /data: a bucket, mounted, or a folder of this machine, copied."""
  if place.kind == 'here':
    return place.path
  return {'source': f'{place.kind}://{place.name}', 'mode': 'MOUNT'}


def assumes(place: Place | None, workdir: str) -> list[str]:
  """What the files take for granted, in sentences."""
  out = [f'the service account of the machines may read and write {workdir} (SkyPilot gives its own account the rights '
         'of the project)', 'every new slice installs about 1 GB of packages, also after a preemption']
  if place and place.kind == 's3':
    out.append(f'`sky check` shows AWS enabled, so that {place} can be mounted')
  if place and place.kind == 'here':
    out.append(f'{place} is small enough to be copied to every host at every start')
  return out
