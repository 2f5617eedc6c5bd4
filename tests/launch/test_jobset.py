"""JobSets, checked against the typed models that Kubeflow publishes and against the requirements of GKE."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet
from odd_texts import identities, programs, texts

from vit_jax.cost import slices
from vit_jax.errors import UserError
from vit_jax.launch import files, jobset
from vit_jax.launch.task import Task

IMAGE = 'us-docker.pkg.dev/project/repository/vit-jax:v1'
TASK = Task('width16', 'bed66b456c', (('--config=configs/quickstart.py', '--workdir=gs://bucket/width16'),))
SLICES = [slices.Slice(generation, topology) for generation, info in slices.GENERATIONS.items()
          for topology in info.topologies]


def _valid(tree):
  """Parses a JobSet as a cluster does. from_dict drops unknown fields, so to_dict must return all of them."""
  read = yaml.safe_load(files.to_yaml(tree))
  assert read == tree and JobsetV1alpha2JobSet.from_dict(read).to_dict() == read
  return read


def _job(tree):
  return tree['spec']['replicatedJobs'][0]['template']['spec']


def _expanded(text):
  """Expands a command as the kubelet does: $$ is $, and $(NAME) is the value of the variable."""
  return re.sub(r'\$(\$|\((.*?)\))', lambda m: '$' if m[1] == '$' else 'VALUE', text, flags=re.DOTALL)


@given(texts, identities, programs, st.sampled_from(SLICES), st.booleans(), texts)
def test_any_task_is_valid_and_its_arguments_arrive_unchanged(name, identity, programs, target, spot, sweep):
  task = Task(name, identity, tuple(programs))
  tree = _valid(jobset.render(task, target, IMAGE, spot=spot, queue='tpus', sweep=sweep))
  container = _job(tree)['template']['spec']['containers'][0]
  assert list(map(_expanded, container['command'])) == task.argv('python')
  assert tree['metadata']['name'] == task.label
  key, _, value = jobset.selector(sweep).partition('=')
  assert tree['metadata']['labels'][key] == value and re.fullmatch('[a-z0-9-]{1,63}', value)


_JOB = ('spec', 'replicatedJobs', 0, 'template', 'spec')


@pytest.mark.parametrize('path', [('spec', 'failurePolicy'), _JOB, (*_JOB, 'template', 'spec', 'containers', 0)])
def test_a_misspelled_field_is_not_valid(path):
  tree = at = jobset.render(TASK, slices.find('v5e-16'), IMAGE)
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
  tree = jobset.render(TASK, slices.find(name, count), IMAGE)
  job, pod = _job(tree), _job(tree)['template']['spec']
  assert tree['spec']['replicatedJobs'][0]['replicas'] == count
  assert (job['parallelism'], job['completions'], job['completionMode']) == (hosts, hosts, 'Indexed')
  assert pod['nodeSelector'] == {'cloud.google.com/gke-tpu-accelerator': accelerator,
                                 'cloud.google.com/gke-tpu-topology': topology}
  assert pod['containers'][0]['resources'] == {'limits': {'google.com/tpu': str(chips)}}
  assert ('annotations' in tree['metadata']) == (hosts > 1)  # one node pool per slice
  assert 'tolerations' not in pod


def test_spot_and_queue():
  tree = jobset.render(TASK, slices.find('v5e-16'), IMAGE, spot=True, queue='tpus', sweep='my_law')
  pod = _job(tree)['template']['spec']
  assert pod['nodeSelector']['cloud.google.com/gke-spot'] == 'true'
  assert pod['tolerations'] == [{'key': 'cloud.google.com/gke-spot', 'operator': 'Equal', 'value': 'true',
                                 'effect': 'NoSchedule'}]
  assert tree['metadata']['labels'] == {'app.kubernetes.io/part-of': 'my-law', 'kueue.x-k8s.io/queue-name': 'tpus'}


@pytest.mark.parametrize('code, retried', [(1, False), (2, False), (42, True), (127, False), (134, True), (143, True)])
def test_exit_codes_decide_over_a_restart(code, retried):
  tree = jobset.render(TASK, slices.find('v5e-16'), IMAGE)
  (rule,), (jobset_rule,) = _job(tree)['podFailurePolicy']['rules'], tree['spec']['failurePolicy']['rules']
  assert rule['action'] == 'FailJob' and rule['onExitCodes']['operator'] == 'NotIn'
  assert (code in rule['onExitCodes']['values']) == retried
  # Kubernetes gives such a failed Job this reason; for any other reason JobSet restarts everything.
  assert jobset_rule['action'] == 'FailJobSet' and jobset_rule['onJobFailureReasons'] == ['PodFailurePolicy']
  pod = _job(tree)['template']['spec']
  assert pod['restartPolicy'] == 'Never' and _job(tree)['backoffLimit'] == 0
  assert rule['onExitCodes']['containerName'] == pod['containers'][0]['name']


@pytest.mark.parametrize('tpu, count, image, queue, message', [
    ('v5e-16', 1, None, None, '--image: expected'), ('v5e-16', 1, '', None, '--image: expected'),
    ('v5e-16', 1, 'a b', None, '--image=a b'), ('v5e-16', 1, '--privileged', None, '--image=--privileged'),
    ('v5e-16', 1, 'x\n', None, '--image=x'), ('v5e-16', 1, IMAGE, 'My Queue', '--queue=My Queue'),
    ('v5e-16', 1, IMAGE, '', '--queue='), ('v5e-8', 2, IMAGE, None, '--num_slices=2: .*v5e-8 is one host')])
def test_bad_input(tpu, count, image, queue, message):
  with pytest.raises(UserError, match=message):
    jobset.check(slices.find(tpu, count), image, queue)


@pytest.mark.parametrize('image', [IMAGE, 'vit-jax', 'localhost:5000/vit-jax@sha256:0a1b'])
def test_image_names(image):
  jobset.check(slices.find('v5e-16', 2), image, 'team-a')
