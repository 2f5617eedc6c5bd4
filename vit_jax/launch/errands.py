"""Kubernetes Jobs of one pod without chips: what comes before the runs of a sweep.

`first` does what the first pod of a run does until it would train, so that a mistake costs a minute of a CPU, not of a
slice. `preparation` writes and indexes a data set where the runs will find it.
"""

from collections.abc import Sequence
from typing import Any

from vit_jax.launch import cluster as cluster_lib
from vit_jax.launch import task
from vit_jax.launch.cluster import Cluster
from vit_jax.launch.jobset import labels_of
from vit_jax.launch.task import slug

PREPARE = 'prepare-'
_KEPT_S = 24 * 3600  # of a Job that has ended


def first(cluster: Cluster, arguments: Sequence[str], devices: int, sweep: str) -> dict[str, Any]:
  """The Job that tries the arguments of a run in a pod, without training."""
  return _job(cluster, first_name(sweep), task.first(arguments, 'python'), task.rehearsed_on(devices), sweep)


def first_name(sweep: str) -> str:
  """The name of the errand `first`."""
  return f'first-{slug(sweep, 40)}'


def preparation(cluster: Cluster, source: str, sweep: str) -> dict[str, Any]:
  """The Job that prepares and indexes a data source (data.source) in the place of the data."""
  argv = task.preparation(source, cluster.place.folder, 'python', ['uv'])
  return _job(cluster, preparation_name(source), argv, {'JAX_PLATFORMS': 'cpu'}, sweep, writes_data=True)


def preparation_name(source: str) -> str:
  """The name of the errand that prepares a data source."""
  return f'{PREPARE}{slug(source.partition(":")[2] or source, 40)}'


def _job(cluster, name, argv, environment, sweep, **options):
  return {
      'apiVersion': 'batch/v1',
      'kind': 'Job',
      'metadata': cluster_lib.metadata(cluster, name, labels_of(sweep)),
      'spec': {'backoffLimit': 0, 'ttlSecondsAfterFinished': _KEPT_S,
               'template': cluster_lib.pod(cluster, argv, None, environment=environment, **options)},
  }
