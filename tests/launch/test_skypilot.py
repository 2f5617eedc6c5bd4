"""Managed jobs, checked against the schema of SkyPilot if it is installed, and against bash."""

import subprocess

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from odd_texts import identities, programs, texts

from vit_jax.cost import slices
from vit_jax.errors import UserError
from vit_jax.launch import files, skypilot
from vit_jax.launch import place as place_lib
from vit_jax.launch.task import Task

TASK = Task('"; rm -rf /', 'bed66b456c', (('--config=configs/quickstart.py', "--config.x=it's $(date) \n `id`"),
                                          ('--workdir=gs://bucket/width16',)))
GS = place_lib.parse('gs://my-bucket/d')
SLICES = [slices.Slice(generation, topology) for generation, info in slices.GENERATIONS.items() if info.vm_type
          for topology in info.topologies]


@given(texts, identities, programs, st.sampled_from(SLICES), st.booleans())
def test_any_task_is_read_back(name, identity, programs, target, spot):
  tree = skypilot.render(Task(name, identity, tuple(programs)), target, spot=spot)
  assert yaml.safe_load(files.to_yaml(tree)) == tree


@given(programs)
def test_a_shell_passes_the_arguments_unchanged(programs):
  task = Task('x', 'bed66b456c', tuple(programs))
  run = yaml.safe_load(files.to_yaml(skypilot.render(task, SLICES[0])))['run']
  echo = run.replace('exec .venv/bin/python', "exec printf '%s\\0'", 1)
  said = subprocess.run(['bash', '-c', echo], capture_output=True, check=True).stdout.decode()
  assert said.split('\0')[:-1] == task.argv('')[1:]


@pytest.mark.parametrize('name, accelerator', [('v4-32', 'tpu-v4-32'), ('v5e-16', 'tpu-v5litepod-16'),
                                               ('v5p-512', 'tpu-v5p-512'), ('v6e-8', 'tpu-v6e-8')])
def test_resources(name, accelerator):
  resources = skypilot.render(TASK, slices.find(name), spot=True)['resources']
  assert resources['accelerators'] == accelerator and resources['use_spot'] is True
  recovery = resources['job_recovery']
  assert {42, 143} <= set(recovery['recover_on_exit_codes']) and 1 not in recovery['recover_on_exit_codes']
  assert recovery['max_restarts_on_errors'] == 0


@pytest.mark.parametrize('tpu, count, message', [
    ('tpu7x-128', 1, r'\(v4, v5e, v5p, v6e\); tpu7x is available only on GKE'),
    ('v4-32', 2, '--num_slices=2: .*--launcher=jobset')])
def test_unsupported_slices_are_refused(tpu, count, message):
  with pytest.raises(UserError, match=message):
    skypilot.check(slices.find(tpu, count), None)


@pytest.mark.parametrize('place, mounts', [
    ('gs://my-bucket/d', {'/data': {'source': 'gs://my-bucket', 'mode': 'MOUNT'}}),
    ('s3://my-bucket/d', {'/data': {'source': 's3://my-bucket', 'mode': 'MOUNT'}}), ('/tmp', {'/data': '/tmp'})])
def test_data_are_mounted(place, mounts):
  place = place_lib.parse(place)
  skypilot.check(SLICES[0], place)
  assert skypilot.render(TASK, SLICES[0], place)['file_mounts'] == mounts
  assert skypilot.first(('--config=r.py',), 4, place, 'first-x')['file_mounts'] == mounts


@pytest.mark.parametrize('place', ['pvc:pictures', 'host:/mnt/d', 'image:/opt/d', '/not/here'])
def test_places_that_new_machines_do_not_have_are_refused(place):
  with pytest.raises(UserError, match=f'--data_dir={place}: '):
    skypilot.check(SLICES[0], place_lib.parse(place))


def test_what_is_assumed_is_said():
  said = '. '.join(skypilot.assumes(place_lib.parse('s3://my-bucket/d'), 'gs://my-bucket/law'))
  for words in ('read and write gs://my-bucket/law', 'every new slice installs about 1 GB', 'sky check', 's3://my-buck'):
    assert words in said, said


def test_setup_is_a_script_that_installs_what_is_pinned():
  setup = skypilot.render(TASK, SLICES[0])['setup']
  assert subprocess.run(['bash', '-n', '-c', setup], capture_output=True).returncode == 0
  assert 'uv sync' in setup and '--extra tpu' in setup  # which does nothing where all is installed


def test_what_comes_before_the_runs_needs_no_chips():
  prepare = skypilot.preparation('tfds:cifar10', GS, 'prepare-cifar10')
  assert prepare['run'] == ('exec python3 -m uv run --quiet --extra prepare python -m vit_jax.data.prepare '
                            '--name=cifar10 --data_dir=/data/d\n')
  first = skypilot.first(('--config=r.py', '--distributed=auto'), 16, GS, 'first-x')
  assert first['run'] == 'exec .venv/bin/python -m vit_jax.main --config=r.py --preflight\n'
  assert 'accelerators' not in str(prepare) + str(first) and first['envs']['JAX_PLATFORMS'] == 'cpu'


def test_jobs_match_the_schema_of_skypilot():
  schemas = pytest.importorskip('sky.utils.schemas', reason='SkyPilot is not installed: pip install skypilot')
  import jsonschema
  tree = yaml.safe_load(files.to_yaml(skypilot.render(TASK, slices.find('v4-32'), GS, spot=True)))
  jsonschema.validate(tree, schemas.get_task_schema())
  jsonschema.validate(tree['resources'], schemas.get_resources_schema())
  tree['resources']['misspelt'] = 1
  with pytest.raises(jsonschema.ValidationError):
    jsonschema.validate(tree['resources'], schemas.get_resources_schema())
