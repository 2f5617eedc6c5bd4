"""JobSets, checked against the typed models that Kubeflow publishes and against the requirements of GKE."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubeflow_trainer_api.models.io_k8s_api_batch_v1_job import IoK8sApiBatchV1Job
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from odd_texts import identities, programs, texts

from vit_jax.cost import slices
from vit_jax.errors import UserError
from vit_jax.launch import cluster as cluster_lib
from vit_jax.launch import errands, files, jobset
from vit_jax.launch import place as place_lib
from vit_jax.launch.cluster import Cluster
from vit_jax.launch.task import Task

IMAGE = 'us-docker.pkg.dev/project/repository/vit-jax:v1'
TASK = Task('width16', 'bed66b456c', (('--config=configs/quickstart.py', '--workdir=gs://bucket/width16'),))
PLACES = [None, *map(place_lib.parse, ('gs://my-bucket/d', 'pvc:pictures/d', 'host:/mnt/d', 'image:/opt/d'))]
CLUSTER = Cluster(IMAGE)
SLICES = [slices.Slice(generation, topology) for generation, info in slices.GENERATIONS.items()
          for topology in info.topologies]


def _valid(tree):
  """Parses a JobSet as a cluster does. from_dict drops unknown fields, so to_dict must return all of them."""
  read = yaml.safe_load(files.to_yaml(tree))
  assert read == tree and JobsetV1alpha2JobSet.from_dict(read).to_dict() == read
  return read


def _valid_job(tree):
  """As `_valid`, for a Job of Kubernetes."""
  read = yaml.safe_load(files.to_yaml(tree))
  assert read == tree and IoK8sApiBatchV1Job.from_dict(read).to_dict() == read
  return read


def _job(tree):
  return tree['spec']['replicatedJobs'][0]['template']['spec']


def _expanded(text):
  """Expands a command as the kubelet does: $$ is $, and $(NAME) is the value of the variable."""
  return re.sub(r'\$(\$|\((.*?)\))', lambda m: '$' if m[1] == '$' else 'VALUE', text, flags=re.DOTALL)


@given(texts, identities, programs, st.sampled_from(SLICES), st.booleans(), texts, st.sampled_from(PLACES))
def test_any_task_is_valid_and_its_arguments_arrive_unchanged(name, identity, programs, target, spot, sweep, place):
  task = Task(name, identity, tuple(programs))
  cluster = Cluster(IMAGE, 'team-a', 'trainer', 'pull', 'tpus', spot, place, 9000)
  tree = _valid(jobset.render(task, target, cluster, sweep))
  container = _job(tree)['template']['spec']['containers'][0]
  assert list(map(_expanded, container['command'])) == task.argv('python')
  assert tree['metadata']['name'] == task.label
  key, _, value = jobset.selector(sweep).partition('=')
  assert tree['metadata']['labels'][key] == value and re.fullmatch('[a-z0-9-]{1,63}', value)


_JOB = ('spec', 'replicatedJobs', 0, 'template', 'spec')


@pytest.mark.parametrize('path', [('spec', 'failurePolicy'), _JOB, (*_JOB, 'template', 'spec', 'containers', 0)])
def test_a_misspelled_field_is_not_valid(path):
  tree = at = jobset.render(TASK, slices.find('v5e-16'), CLUSTER)
  for key in path:
    at = at[key]
  at['misspelt'] = 1
  with pytest.raises(AssertionError):
    _valid(tree)


@pytest.mark.parametrize('name, count, accelerator, topology, hosts, chips', [
    ('v5e-16', 1, 'tpu-v5-lite-podslice', '4x4', 4, 4), ('v5e-8', 1, 'tpu-v5-lite-podslice', '2x4', 1, 8),
    ('v4-32', 2, 'tpu-v4-podslice', '2x2x4', 4, 4), ('v5p-512', 1, 'tpu-v5p-slice', '4x8x8', 64, 4),
    ('v6e-1', 1, 'tpu-v6e-slice', '1x1', 1, 1), ('tpu7x-128', 4, 'tpu7x', '4x4x4', 16, 4)])
def test_a_gang_of_hosts_on_the_right_nodes(name, count, accelerator, topology, hosts, chips):
  tree = jobset.render(TASK, slices.find(name, count), CLUSTER)
  job, pod = _job(tree), _job(tree)['template']['spec']
  assert tree['spec']['replicatedJobs'][0]['replicas'] == count
  assert (job['parallelism'], job['completions'], job['completionMode']) == (hosts, hosts, 'Indexed')
  assert pod['nodeSelector'] == {'cloud.google.com/gke-tpu-accelerator': accelerator,
                                 'cloud.google.com/gke-tpu-topology': topology}
  resources = pod['containers'][0]['resources']
  assert resources['limits'] == {'google.com/tpu': str(chips)}
  assert set(resources['requests']) == {'cpu', 'memory', 'google.com/tpu'}  # without, it is evicted first
  assert ('annotations' in tree['metadata']) == (hosts > 1)  # one node pool per slice
  assert 'tolerations' not in pod


def test_spot_and_queue():
  tree = jobset.render(TASK, slices.find('v5e-16'), Cluster(IMAGE, queue='tpus', spot=True), 'my_law')
  pod = _job(tree)['template']['spec']
  assert pod['nodeSelector']['cloud.google.com/gke-spot'] == 'true'
  assert pod['tolerations'] == [{'key': 'cloud.google.com/gke-spot', 'operator': 'Equal', 'value': 'true',
                                 'effect': 'NoSchedule'}]
  assert tree['metadata']['labels'] == {'app.kubernetes.io/part-of': 'my-law', 'kueue.x-k8s.io/queue-name': 'tpus'}


@pytest.mark.parametrize('code, retried', [(1, False), (2, False), (42, True), (127, False), (134, True), (143, True)])
def test_exit_codes_decide_over_a_restart(code, retried):
  tree = jobset.render(TASK, slices.find('v5e-16'), CLUSTER)
  (rule,), (jobset_rule,) = _job(tree)['podFailurePolicy']['rules'], tree['spec']['failurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['operator'] == 'NotIn'
  assert (code in rule['onExitCodes']['values']) == retried
  # Kubernetes gives such a failed Job this reason; for any other reason JobSet restarts everything.
  assert jobset_rule['action'] == 'FailJobSet' and jobset_rule['onJobFailureReasons'] == ['PodFailurePolicy']
  pod = _job(tree)['template']['spec']
  assert pod['restartPolicy'] == 'Never' and _job(tree)['backoffLimit'] == 0
  assert rule['onExitCodes']['containerName'] == pod['containers'][0]['name']


def _pod(cluster, name='v5e-16', count=1, host_chips=None):
  tree = _valid(jobset.render(TASK, slices.find(name, count, host_chips), cluster))
  template = _job(tree)['template']
  return template.get('metadata', {}).get('annotations', {}), template['spec'], template['spec']['containers'][0]


@pytest.mark.parametrize('place, volume', [
    ('gs://my-bucket/d', {'csi': {'driver': 'gcsfuse.csi.storage.gke.io', 'readOnly': True, 'volumeAttributes': {
        'bucketName': 'my-bucket', 'mountOptions': 'implicit-dirs,uid=1000,gid=1000'}}}),
    ('pvc:pictures/d', {'persistentVolumeClaim': {'claimName': 'pictures', 'readOnly': True}}),
    ('host:/mnt/d', {'hostPath': {'path': '/mnt/d', 'type': 'Directory'}}), ('image:/opt/d', None)])
def test_data_are_mounted(place, volume):
  place = place_lib.parse(place)
  annotations, spec, container = _pod(Cluster(IMAGE, place=place))
  volumes = {v.pop('name'): v for v in spec['volumes']}
  mounts = {m['name']: m for m in container['volumeMounts']}
  assert volumes.get('data') == volume
  assert annotations == ({'gke-gcsfuse/volumes': 'true'} if place.kind == 'gs' else {})
  if volume:
    assert mounts['data'] == {'name': 'data', 'mountPath': place.mount, 'readOnly': True}
    assert f'{place.folder}/'.startswith(f'{place.mount}/')
  assert mounts['shared-memory']['mountPath'] == '/dev/shm'
  assert volumes['shared-memory']['emptyDir']['sizeLimit'] == '72Gi'


def test_what_an_operator_asks_for():
  """Namespace, service account, pull secret, ports, coordinator port, an end of what has ended."""
  cluster = Cluster(IMAGE, 'team-a', 'trainer', 'pull', coordinator_port=9000)
  tree = _valid(jobset.render(TASK, slices.find('v5e-16'), cluster))
  spec = _job(tree)['template']['spec']
  (container,) = spec['containers']
  assert tree['metadata']['namespace'] == 'team-a' and tree['spec']['ttlSecondsAfterFinished'] == 7 * 24 * 3600
  assert spec['serviceAccountName'] == 'trainer' and spec['imagePullSecrets'] == [{'name': 'pull'}]
  assert {port['containerPort'] for port in container['ports']} == {8471, 8080, 8431, 9000}
  assert {'name': 'JAX_COORDINATOR_PORT', 'value': '9000'} in container['env']


def test_the_coordinator_port_is_that_of_jax():
  from jax._src.clusters import cloud_tpu_cluster
  assert str(jobset._COORDINATOR_PORT) == cloud_tpu_cluster.coordinator_port
  ports = {port['containerPort'] for port in _pod(CLUSTER)[2]['ports']}
  assert jobset._COORDINATOR_PORT in ports and not any('PORT' in v['name'] for v in _pod(CLUSTER)[2]['env'])


@pytest.mark.parametrize('count', [1, 2])
def test_slices_talk_over_the_network_of_their_hosts(count):
  _, spec, _ = _pod(Cluster(IMAGE, place=place_lib.parse('gs://my-bucket/d')), count=count)
  expected = (True, 'ClusterFirstWithHostNet') if count > 1 else (None, None)
  assert (spec.get('hostNetwork'), spec.get('dnsPolicy')) == expected
  attributes = next(v for v in spec['volumes'] if v['name'] == 'data')['csi']['volumeAttributes']
  assert ('hostNetworkPodKSA' in attributes) == (count > 1)


@pytest.mark.parametrize('name, host_chips, hosts, chips, cpus, memory', [
    ('v5e-8', None, 1, 8, 168, '288Gi'), ('v5e-8', 4, 2, 4, 84, '144Gi'), ('v6e-8', 4, 2, 4, 135, '540Gi'),
    ('v5e-1', None, 1, 1, 18, '36Gi'), ('v4-8', None, 1, 4, 180, '305Gi')])
def test_the_machines_of_a_slice(name, host_chips, hosts, chips, cpus, memory):
  target = slices.find(name, host_chips=host_chips)
  tree = jobset.render(TASK, target, CLUSTER)
  resources = _job(tree)['template']['spec']['containers'][0]['resources']
  assert _job(tree)['parallelism'] == hosts
  assert resources['requests'] == {'cpu': str(cpus), 'memory': memory, 'google.com/tpu': str(chips)}


@pytest.mark.parametrize('privileged', [True, False])
def test_privileges(privileged):
  context = _pod(Cluster(IMAGE, privileged=privileged))[2]['securityContext']
  assert context == ({'privileged': True, 'runAsUser': 0} if privileged else {'allowPrivilegeEscalation': False})


@pytest.mark.parametrize('place', [p for p in PLACES if p and p.kind != 'image'])
@pytest.mark.parametrize('source, words', [
    ('tfds:cifar10', [*'uv run --quiet --extra prepare python -m vit_jax.data.prepare --name=cifar10'.split()]),
    ('folder:pictures', ['python', '-m', 'vit_jax.data.prepare', '--source=folder:pictures', '--index'])])
def test_the_job_that_prepares_data(place, source, words):
  tree = _valid_job(errands.preparation(Cluster(IMAGE, 'team-a', 'trainer', place=place), source, 'my law'))
  spec = tree['spec']['template']['spec']
  assert spec['containers'][0]['command'] == [*words, f'--data_dir={place.folder}']
  assert spec['containers'][0]['volumeMounts'][1] == {'name': 'data', 'mountPath': place.mount, 'readOnly': False}
  if place.kind == 'gs':  # TFDS renames the folder that it has written
    assert 'rename-dir-limit' in spec['volumes'][1]['csi']['volumeAttributes']['mountOptions']
  assert spec['serviceAccountName'] == 'trainer' and 'google.com/tpu' not in str(spec)


def test_the_first_pod_tries_a_run_without_chips():
  arguments = ('--config=r.py', '--workdir=gs://b/x', '--distributed=auto', '--trunk=gs://b/t')
  tree = _valid_job(errands.first(CLUSTER, arguments, 16, 'my law'))
  (container,) = tree['spec']['template']['spec']['containers']
  assert container['command'] == ['python', '-m', 'vit_jax.main', '--config=r.py', '--workdir=gs://b/x', '--preflight']
  assert {'name': 'JAX_PLATFORMS', 'value': 'cpu'} in container['env'] and tree['metadata']['name'] == 'first-my-law'
  assert 'host_platform_device_count=16' in str(container['env']) and 'google.com/tpu' not in str(tree)


def test_what_is_assumed_of_the_cluster_is_said():
  cluster = Cluster(IMAGE, 'team-a', 'trainer', queue='tpus', place=place_lib.parse('gs://my-bucket/d'))
  said = '. '.join(cluster_lib.assumes(cluster, 'gs://my-bucket/law', host_network=True))
  for words in ('Workload Identity', "'trainer'", 'gs://my-bucket/law', 'roles/storage.objectUser', 'GcsFuseCsiDriver',
                "LocalQueue 'tpus'", 'network of their nodes', 'privileged'):
    assert words in said, said


@pytest.mark.parametrize('tpu, count, values, message', [
    ('v5e-16', 1, {'image': None}, '--image: expected'), ('v5e-16', 1, {'image': ''}, '--image: expected'),
    ('v5e-16', 1, {'image': 'IMAGE'}, r'replace the name in capitals'), ('v5e-16', 1, {'image': 'a b'}, '--image=a b'),
    ('v5e-16', 1, {'image': '--privileged'}, '--image=--privileged'), ('v5e-16', 1, {'image': 'x\n'}, '--image=x'),
    ('v5e-16', 1, {'queue': 'My Queue'}, '--queue=My Queue'), ('v5e-16', 1, {'queue': ''}, '--queue='),
    ('v5e-16', 1, {'namespace': 'A'}, '--namespace=A: expected'),
    ('v5e-16', 1, {'service_account': 'a b'}, '--service_account=a b: expected the name of a ServiceAccount'),
    ('v5e-16', 1, {'place': place_lib.parse('s3://my-bucket/d')}, 'GKE mounts no S3 buckets. .*pvc:CLAIM'),
    ('v5e-8', 2, {}, '--num_slices=2: .*v5e-8 is one host')])
def test_bad_input(tpu, count, values, message):
  with pytest.raises(UserError, match=message):
    jobset.check(slices.find(tpu, count), Cluster(**{'image': IMAGE, **values}))


@pytest.mark.parametrize('image', [IMAGE, 'vit-jax', 'localhost:5000/vit-jax@sha256:0a1b'])
def test_image_names(image):
  jobset.check(slices.find('v5e-16', 2), Cluster(image, queue='team-a'))
