"""Kubernetes JobSets for TPU slices on GKE: https://jobset.sigs.k8s.io, API jobset.x-k8s.io/v1alpha2.

The hosts of a slice start and end together. A failed pod fails its Job at once (backoffLimit 0). If its exit code is
final, the reason is PodFailurePolicy, and the JobSet fails. For any other reason all pods are restarted, and the runs
resume from their latest checkpoints. A JobSet that has ended cannot be started again, and the image of one that has
not cannot be changed (`replicatedJobs` is immutable: pkg/webhooks/jobset_webhook.go): delete it, then apply again.
"""

from typing import Any

from vit_jax import exits
from vit_jax.cost.slices import GENERATIONS, Slice
from vit_jax.errors import UserError
from vit_jax.launch import cluster as cluster_lib
from vit_jax.launch.cluster import Cluster
from vit_jax.launch.task import ENVIRONMENT, Task, slug

_SWEEP_LABEL = 'app.kubernetes.io/part-of'
_MAX_RESTARTS = 1000  # including preemptions by Kueue and reclaimed Spot VMs
_SPOT_GRACE_S = 15  # the maximum on a Spot VM; a pod that requests more gets none
_GRACE_S = 300
_KEPT_S = 7 * 24 * 3600  # of a JobSet that has ended; then its name is free again
# 8471: hosts of a slice; 8080: slices (JobSet's examples/tpu-multislice); 8431: duty cycle and memory for Cloud
# Monitoring (cloud.google.com/kubernetes-engine/docs/how-to/tpus#runtime-metrics).
_PORTS = (8471, 8080, 8431)
_COORDINATOR_PORT = 8482  # of JAX since 0.8.1 (jax-ml/jax#35905); JAX_COORDINATOR_PORT sets another


def check(target: Slice, cluster: Cluster) -> None:
  """Raises UserError for what GKE cannot run."""
  cluster_lib.check(cluster)
  if target.count > 1 and target.hosts == 1:
    raise UserError(f'--num_slices={target.count}: GKE combines only slices of several hosts, but {target.name} is one '
                    'host; expected 1')


def render(task: Task, target: Slice, cluster: Cluster, sweep: str = '') -> dict[str, Any]:
  """The JobSet of a task.

  Args:
    task: the task of its pods.
    target: the slices that it runs on.
    cluster: the cluster.
    sweep: the name of the sweep, which becomes a label (see `selector`).
  """
  labels, more = labels_of(sweep), {}
  if cluster.queue:
    labels['kueue.x-k8s.io/queue-name'] = cluster.queue
  if target.hosts > 1:  # each slice is a node pool, and its Job must not be spread over two
    more['annotations'] = {'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'}
  return {
      'apiVersion': 'jobset.x-k8s.io/v1alpha2',
      'kind': 'JobSet',
      'metadata': cluster_lib.metadata(cluster, task.label, labels, **more),
      'spec': {
          'ttlSecondsAfterFinished': _KEPT_S,
          'failurePolicy': {
              'maxRestarts': _MAX_RESTARTS,
              'rules': [{'name': 'finalExitCode', 'action': 'FailJobSet', 'onJobFailureReasons': ['PodFailurePolicy']}],
          },
          'replicatedJobs': [{
              'name': 'slice',
              'replicas': target.count,
              'template': {'spec': _job(task, target, cluster)},
          }],
      },
  }


def labels_of(sweep: str) -> dict[str, str]:
  """The labels of all objects of a sweep."""
  return {_SWEEP_LABEL: slug(sweep)}


def selector(sweep: str) -> str:
  """The label selector of all objects of a sweep, for kubectl -l."""
  return f'{_SWEEP_LABEL}={slug(sweep)}'


def _job(task, target, cluster):
  final = {'operator': 'NotIn', 'values': list(exits.RETRIED), 'containerName': cluster_lib.CONTAINER}
  return {
      'completionMode': 'Indexed',
      'parallelism': target.hosts,
      'completions': target.hosts,
      'backoffLimit': 0,
      'podFailurePolicy': {'rules': [{'action': 'FailJob', 'onExitCodes': final}]},
      'template': _pod(task, target, cluster),
  }


def _pod(task, target, cluster):
  port = cluster.coordinator_port
  environment = ENVIRONMENT | ({'JAX_COORDINATOR_PORT': str(port)} if port else {})
  template = cluster_lib.pod(
      cluster, task.argv('python'), target.machine, chips=target.chips_per_host, host_network=target.count > 1,
      ports=(*_PORTS, port or _COORDINATOR_PORT), environment=environment)
  spec = template['spec']
  spec['terminationGracePeriodSeconds'] = _SPOT_GRACE_S if cluster.spot else _GRACE_S
  spec['nodeSelector'] = {'cloud.google.com/gke-tpu-accelerator': GENERATIONS[target.generation].gke_accelerator,
                          'cloud.google.com/gke-tpu-topology': target.topology}
  if cluster.spot:
    spot = 'cloud.google.com/gke-spot'
    spec['nodeSelector'][spot] = 'true'
    spec['tolerations'] = [{'key': spot, 'operator': 'Equal', 'value': 'true', 'effect': 'NoSchedule'}]
  return template
