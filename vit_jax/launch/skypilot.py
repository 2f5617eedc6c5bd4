"""SkyPilot managed jobs for Cloud TPU VMs: https://docs.skypilot.co, the way of the TPU Research Cloud's quota.

SkyPilot copies this repository to every host of the slice, runs `setup` once and `run` on each, and starts a new slice
when one is taken away, or when a host exits with a code that says so.
"""

import shlex
from typing import Any

from vit_jax import exits
from vit_jax.cost.slices import GENERATIONS, Slice
from vit_jax.errors import UserError
from vit_jax.launch.task import ENVIRONMENT, Task

# uv brings the Python and the versions that pyproject.toml asks for, whatever the machine has.
_SETUP = '''set -e
python3 -m pip install --quiet uv
python3 -m uv sync --quiet --python 3.11 --extra tpu
'''


def check(target: Slice) -> None:
  """Raises UserError for slices that Cloud TPU VMs, or SkyPilot, do not have."""
  with_vms = [name for name, generation in GENERATIONS.items() if generation.vm_type]
  if target.generation not in with_vms:
    raise UserError(f'--tpu={target.name}: Cloud TPU VMs are {", ".join(with_vms)}; {target.generation} is for GKE: '
                    '--launcher=jobset')
  if target.count > 1:
    raise UserError(f'--num_slices={target.count}: SkyPilot starts single slices; several are for --launcher=jobset')


def render(task: Task, target: Slice, *, spot: bool = False) -> dict[str, Any]:
  """The managed job of a task. See `jobset.render`."""
  generation = GENERATIONS[target.generation]
  return {
      'name': task.label,
      'resources': {
          'infra': 'gcp',
          'accelerators': f'tpu-{generation.vm_type}-{target.number}',
          'accelerator_args': {'runtime_version': generation.vm_runtime},
          'use_spot': spot,
          'job_recovery': {'max_restarts_on_errors': 0, 'recover_on_exit_codes': list(exits.RETRIED)},
      },
      'workdir': '.',
      'envs': dict(ENVIRONMENT),
      'setup': _SETUP,
      'run': f'exec {shlex.join(task.argv(".venv/bin/python"))}\n',
  }
