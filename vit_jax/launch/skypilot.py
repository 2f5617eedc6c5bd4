"""SkyPilot managed jobs for Cloud TPU VMs, which the TPU Research Cloud offers: https://docs.skypilot.co.

SkyPilot copies this repository to every host of the slice, runs `setup` once and then `run` on each host. It starts a
new slice if the slice is preempted, or if a host exits with one of `exits.RETRIED`.
"""

import shlex
from typing import Any

from vit_jax import exits
from vit_jax.cost.slices import GENERATIONS, Slice
from vit_jax.errors import UserError
from vit_jax.launch.task import ENVIRONMENT, Task

# uv installs the Python and the package versions that pyproject.toml requires, whatever the machine has.
_SETUP = '''set -e
python3 -m pip install --quiet uv
python3 -m uv sync --quiet --python 3.11 --extra tpu
'''


def check(target: Slice) -> None:
  """Raises UserError for slices that Cloud TPU VMs or SkyPilot do not support."""
  with_vms = [name for name, generation in GENERATIONS.items() if generation.vm_type]
  if target.generation not in with_vms:
    raise UserError(f'--tpu={target.name}: expected a Cloud TPU VM ({", ".join(with_vms)}); {target.generation} is '
                    'available only on GKE: use --launcher=jobset')
  if target.count > 1:
    raise UserError(f'--num_slices={target.count}: SkyPilot supports only 1; use --launcher=jobset for more')


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
