"""A Kubernetes cluster as the user describes it, and the pods that follow from it.

Every kind of file (a JobSet of a run, a Job that prepares data, the first pod) is made of `pod`.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from vit_jax.cost.slices import Machine
from vit_jax.errors import UserError
from vit_jax.launch.place import Place
from vit_jax.launch.task import ENVIRONMENT

CONTAINER = 'run'
_USER = 1000  # of the image, see the Dockerfile
_SHARE = 0.75  # of a machine that a pod requests; the rest is for the system and for the sidecar that mounts buckets
_NAME = '[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?'
_EXAMPLE = 'us-docker.pkg.dev/my-project/my-repository/vit-jax:v1'


@dataclasses.dataclass(frozen=True)
class Cluster:
  """What files for Kubernetes depend on, apart from the runs.

  Attributes:
    image: the container image.
    namespace: of all objects; None: that of kubectl.
    service_account: the Kubernetes service account whose rights the pods have; None: the namespace's default.
    pull_secret: the Secret with which a private image is pulled.
    queue: the Kueue LocalQueue in which runs wait; None: they start at once.
    spot: whether to use Spot VMs.
    place: where the data are.
    coordinator_port: the port at which the hosts of a run meet; None: JAX's own.
    privileged: whether containers run as root with all rights. Google's examples for TPUs do (JobSet's
      examples/tpu-multislice, xpk); whether less is enough has not been tried by us.
  """
  image: str
  namespace: str | None = None
  service_account: str | None = None
  pull_secret: str | None = None
  queue: str | None = None
  spot: bool = False
  place: Place | None = None
  coordinator_port: int | None = None
  privileged: bool = True


def check(cluster: Cluster) -> None:
  """Raises UserError for values that Kubernetes would reject or misinterpret."""
  if not cluster.image:
    raise UserError(f'--image: expected the container image of this repository, such as {_EXAMPLE} '
                    '(vit_jax/launch/Dockerfile builds it)')
  if not re.fullmatch(r'[a-z0-9][A-Za-z0-9._:/@-]*', cluster.image, re.ASCII):
    hint = ' (replace the name in capitals by that of your image)' if cluster.image.isupper() else ''
    raise UserError(f'--image={cluster.image}: expected the name of an image{hint}, such as {_EXAMPLE}')
  for flag, what in (('queue', 'Kueue LocalQueue'), ('namespace', 'namespace'), ('service_account', 'ServiceAccount'),
                     ('pull_secret', 'Secret')):
    value = getattr(cluster, flag)
    if value is not None and not re.fullmatch(_NAME, value, re.ASCII):
      raise UserError(f'--{flag}={value}: expected the name of a {what}: lower-case letters, digits, hyphens')
  if cluster.place and cluster.place.kind == 's3':
    raise UserError(f'--data_dir={cluster.place}: GKE mounts no S3 buckets. Copy the data (gcloud storage rsync '
                    f'--recursive {cluster.place} gs://my-bucket/FOLDER) and give gs://my-bucket/FOLDER, or mount it '
                    'by a driver that your cluster has, and give the claim: pvc:CLAIM/FOLDER')


def metadata(cluster: Cluster, name: str, labels: dict[str, str], **more: Any) -> dict[str, Any]:
  """The metadata of an object."""
  return {'name': name, **({'namespace': cluster.namespace} if cluster.namespace else {}), 'labels': labels, **more}


def pod(cluster: Cluster, argv: Sequence[str], machine: Machine | None, *, chips: int = 0, writes_data: bool = False,
        host_network: bool = False, ports: Sequence[int] = (), environment: dict[str, str] | None = None,
        ) -> dict[str, Any]:
  """The template of a pod with one container.

  Args:
    cluster: the cluster.
    argv: the command.
    machine: the machine that it has to itself; None: any.
    chips: TPU chips of the machine.
    writes_data: whether the data are mounted for writing.
    host_network: whether it uses the machine's network.
    ports: that the container listens on.
    environment: variables of the container.
  """
  volumes, mounts = _volumes(cluster.place, machine, writes_data, host_network)
  spec = {'restartPolicy': 'Never'}
  if host_network:  # faster between slices; JobSet's and xpk's examples do the same
    spec |= {'hostNetwork': True, 'dnsPolicy': 'ClusterFirstWithHostNet'}
  if cluster.service_account:
    spec['serviceAccountName'] = cluster.service_account
  if cluster.pull_secret:
    spec['imagePullSecrets'] = [{'name': cluster.pull_secret}]
  spec['containers'] = [{
      'name': CONTAINER,
      'image': cluster.image,
      'command': [_escaped(word) for word in argv],
      'env': [{'name': name, 'value': value} for name, value in (environment or ENVIRONMENT).items()],
      **({'ports': [{'containerPort': port, 'protocol': 'TCP'} for port in ports]} if ports else {}),
      'resources': _resources(machine, chips),
      'securityContext': _security(cluster.privileged and chips > 0),
      'volumeMounts': mounts,
  }]
  spec['volumes'] = volumes
  # The annotation makes GKE add the sidecar that mounts buckets:
  # cloud.google.com/kubernetes-engine/docs/how-to/cloud-storage-fuse-csi-driver-ephemeral
  mounted = {'metadata': {'annotations': {'gke-gcsfuse/volumes': 'true'}}} if _is_bucket(cluster.place) else {}
  return {**mounted, 'spec': spec}


def _security(privileged):
  """Rights of a container. Root, because the devices of the chips (/dev/vfio, /dev/accel) belong to root."""
  return {'privileged': True, 'runAsUser': 0} if privileged else {'allowPrivilegeEscalation': False}


def _resources(machine, chips):
  """Requests, without which a pod is evicted first and Kueue counts neither CPUs nor memory."""
  requests = {'cpu': '4', 'memory': '16Gi'} if machine is None else {
      'cpu': str(int(_SHARE * machine.cpus)), 'memory': f'{int(_SHARE * machine.memory_gb)}Gi'}
  tpu = {'google.com/tpu': str(chips)} if chips else {}
  return {'requests': requests | tpu, **({'limits': tpu} if tpu else {})}


def _volumes(place, machine, writes, host_network):
  """(volumes, mounts): shared memory, in which data workers pass batches, and the data."""
  shared = 4 if machine is None else int(_SHARE * machine.memory_gb / 2)
  volumes = [{'name': 'shared-memory', 'emptyDir': {'medium': 'Memory', 'sizeLimit': f'{shared}Gi'}}]
  mounts = [{'name': 'shared-memory', 'mountPath': '/dev/shm'}]
  if place and place.kind != 'image':
    volumes.append({'name': 'data', **_source(place, writes, host_network)})
    mounts.append({'name': 'data', 'mountPath': place.mount, 'readOnly': not writes})
  return volumes, mounts


def _source(place, writes, host_network):
  if place.kind == 'pvc':
    return {'persistentVolumeClaim': {'claimName': place.name, 'readOnly': not writes}}
  if not _is_bucket(place):
    return {'hostPath': {'path': place.path, 'type': 'Directory'}}
  # TFDS renames the folder that it has written, which Cloud Storage FUSE refuses by default (--rename-dir-limit=0):
  # github.com/GoogleCloudPlatform/gcsfuse, docs/semantics.md. `implicit-dirs` shows folders that have no object. A
  # container whose user is not root needs uid and gid (gcs-fuse-csi-driver, docs/known-issues.md).
  options = f'implicit-dirs,uid={_USER},gid={_USER}{",rename-dir-limit=200000" if writes else ""}'
  attributes = {'bucketName': place.name, 'mountOptions': options}
  if host_network:  # otherwise the sidecar has the rights of the node: gcs-fuse-csi-driver, docs/authentication.md
    attributes['hostNetworkPodKSA'] = 'true'
  return {'csi': {'driver': 'gcsfuse.csi.storage.gke.io', 'readOnly': not writes, 'volumeAttributes': attributes}}


def _is_bucket(place):
  return place is not None and place.kind == 'gs'


def _escaped(word):
  """Escapes a word of a command, in which Kubernetes expands $(NAME) and replaces $$ by $."""
  return word.replace('$', '$$')


def assumes(cluster: Cluster, workdir: str, host_network: bool = False) -> list[str]:
  """What the files take for granted of the cluster, in sentences."""
  account = cluster.service_account or 'default'
  place = cluster.place
  reads = f' and read {place} (roles/storage.objectViewer)' if _is_bucket(place) else ''
  out = [f'Workload Identity is on, and the service account {account!r} may read and write {workdir} '
         f'(roles/storage.objectUser){reads}']
  if host_network:
    out.append('pods of several slices use the network of their nodes: what is written to a bucket is written with the '
               "rights of the nodes' service account")
  if _is_bucket(place):
    out.append('the cluster has the Cloud Storage FUSE driver (GcsFuseCsiDriver)')
  if place and place.kind == 'pvc':
    out.append(f'the claim {place.name!r} is in the namespace of the runs and can be mounted by many nodes at once')
  if place and place.kind == 'host':
    out.append(f'every node has the data at {place.path}')
  if place and place.kind == 'image':
    out.append(f'the image has the data at {place.path}')
  if cluster.queue:
    out.append(f'the Kueue LocalQueue {cluster.queue!r} is in the namespace of the runs, and its quota covers '
               'google.com/tpu, cpu and memory')
  if cluster.privileged:
    out.append('privileged containers are allowed')
  return out
