"""Kubernetes JobSets for TPU slices on GKE: https://jobset.sigs.k8s.io, API jobset.x-k8s.io/v1alpha2.

The hosts of a slice start and end together. A failed pod fails its Job at once (backoffLimit 0). If its exit code is
final, the reason is PodFailurePolicy, and the JobSet fails. For any other reason all pods are restarted, and the runs
resume from their latest checkpoints.
"""

import re
from typing import Any

from vit_jax import exits
from vit_jax.cost.slices import GENERATIONS, Slice
from vit_jax.errors import UserError
from vit_jax.launch.task import ENVIRONMENT, Task, slug

_SWEEP_LABEL = 'app.kubernetes.io/part-of'
_MAX_RESTARTS = 1000  # including preemptions by Kueue and reclaimed Spot VMs
_SPOT_GRACE_S = 15  # the maximum on a Spot VM; a pod that requests more gets none
_GRACE_S = 300


def check(target: Slice, image: str | None, queue: str | None) -> None:
  """Raises UserError for values that Kubernetes would reject or misinterpret."""
  if not image:
    raise UserError('--image: expected the container image of this repository, such as '
                    'us-docker.pkg.dev/PROJECT/REPOSITORY/vit-jax:v1 (vit_jax/launch/Dockerfile builds it)')
  if not re.fullmatch(r'[a-z0-9][A-Za-z0-9._:/@-]*', image, re.ASCII):
    raise UserError(f'--image={image}: expected the name of an image, such as '
                    'us-docker.pkg.dev/PROJECT/REPOSITORY/vit-jax:v1')
  if queue is not None and not re.fullmatch(r'[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?', queue, re.ASCII):
    raise UserError(f'--queue={queue}: expected the name of a Kueue LocalQueue: lower-case letters, digits, hyphens')
  if target.count > 1 and target.hosts == 1:
    raise UserError(f'--num_slices={target.count}: GKE combines only slices of several hosts, but {target.name} is one '
                    'host; expected 1')


def render(task: Task, target: Slice, image: str, *, spot: bool = False, queue: str | None = None,
           sweep: str = '') -> dict[str, Any]:
  """The JobSet of a task.

  Args:
    task: the task of its pods.
    target: the slices that it runs on.
    image: the container image.
    spot: whether to use Spot VMs.
    queue: the Kueue LocalQueue in which it waits; None to start at once.
    sweep: the name of the sweep, which becomes a label (see `selector`).
  """
  metadata = {'name': task.label, 'labels': {_SWEEP_LABEL: slug(sweep)}}
  if queue:
    metadata['labels']['kueue.x-k8s.io/queue-name'] = queue
  if target.hosts > 1:  # each slice is a node pool, and its Job must not be spread over two
    metadata['annotations'] = {'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'}
  return {
      'apiVersion': 'jobset.x-k8s.io/v1alpha2',
      'kind': 'JobSet',
      'metadata': metadata,
      'spec': {
          'failurePolicy': {
              'maxRestarts': _MAX_RESTARTS,
              'rules': [{'name': 'finalExitCode', 'action': 'FailJobSet', 'onJobFailureReasons': ['PodFailurePolicy']}],
          },
          'replicatedJobs': [{
              'name': 'slice',
              'replicas': target.count,
              'template': {'spec': _job(task, target, image, spot)},
          }],
      },
  }


def selector(sweep: str) -> str:
  """The label selector of all JobSets of a sweep, for kubectl -l."""
  return f'{_SWEEP_LABEL}={slug(sweep)}'


def _job(task, target, image, spot):
  final = {'operator': 'NotIn', 'values': list(exits.RETRIED), 'containerName': 'run'}
  return {
      'completionMode': 'Indexed',
      'parallelism': target.hosts,
      'completions': target.hosts,
      'backoffLimit': 0,
      'podFailurePolicy': {'rules': [{'action': 'FailJob', 'onExitCodes': final}]},
      'template': {'spec': _pod(task, target, image, spot)},
  }


def _pod(task, target, image, spot):
  node = {'cloud.google.com/gke-tpu-accelerator': GENERATIONS[target.generation].gke_accelerator,
          'cloud.google.com/gke-tpu-topology': target.topology}
  pod = {
      'restartPolicy': 'Never',
      'terminationGracePeriodSeconds': _SPOT_GRACE_S if spot else _GRACE_S,
      'nodeSelector': node,
      'containers': [{
          'name': 'run',
          'image': image,
          'command': [_escaped(word) for word in task.argv('python')],
          'env': [{'name': name, 'value': value} for name, value in ENVIRONMENT.items()],
          'resources': {'limits': {'google.com/tpu': str(target.chips_per_host)}},
          'securityContext': {'allowPrivilegeEscalation': False},
          'volumeMounts': [{'name': 'shared-memory', 'mountPath': '/dev/shm'}],
      }],
      # Data workers pass batches through shared memory, of which a container has only 64 MB by default.
      'volumes': [{'name': 'shared-memory', 'emptyDir': {'medium': 'Memory'}}],
  }
  if spot:
    spot_key = 'cloud.google.com/gke-spot'
    node[spot_key] = 'true'
    pod['tolerations'] = [{'key': spot_key, 'operator': 'Equal', 'value': 'true', 'effect': 'NoSchedule'}]
  return pod


def _escaped(word):
  """Escapes a word of a command, in which Kubernetes expands $(NAME) and replaces $$ by $."""
  return word.replace('$', '$$')
