"""The command python -m vit_jax.sweep --launcher, which renders sweeps for clusters."""

import re
from types import SimpleNamespace

import command_line
import pages
import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

from vit_jax import sweep_launch
from vit_jax.cost import slices

SWEEP = '''
from vit_jax.sweeps import Sweep, axis, branches, chain, product

def get_sweep():
  odd = axis('data.data_dir', '"; rm -rf /', "$(HOME) it's\\n- a: b")
  alone = product(axis('model.depth', 1, 2, 3), odd)
  shared = product(axis('model.width', 16, 32), branches([1000, 1500, 2000]))
  return Sweep('configs/quickstart.py', chain(alone, shared))
'''
JOBSET = ('--launcher=jobset', '--tpu=v5e-16', '--spot', '--image=us-docker.pkg.dev/p/r/vit-jax:v1', '--queue=tpus',
          '--workdir=gs://bucket/law')
SKYPILOT = ('--launcher=skypilot', '--tpu=v4-32', '--spot', '--workdir=gs://bucket/law')


@pytest.fixture(name='env', scope='module')
def _env():
  """Buckets on loopback, where the packages for them are installed; else no bucket is reached, and that is said."""
  try:
    import object_store
  except ImportError:
    yield command_line.ON_CPU
    return
  with object_store.serve() as store:
    for name in ('bucket', 'my-bucket'):
      store.bucket(name)
    yield command_line.ON_CPU | store.environment


def _sweep(folder, *flags, sweep=SWEEP, env=command_line.ON_CPU):
  (folder / 'my "law".py').write_text(sweep)
  done = command_line.run('sweep', f'--sweep={folder}/my "law".py', *flags, env=env)
  assert 'Traceback' not in done.stderr, done.stderr
  return done


def test_twelve_runs_as_jobsets(tmp_path, env):
  done = _sweep(tmp_path, *JOBSET, f'--out={tmp_path}/manifests', env=env)
  assert done.returncode == 0, done.stderr
  for said in ('12 runs in 8 files', 'v5e-16 (16 chips, 4x4), 4 hosts', f'kubectl apply -f {tmp_path}/manifests',
               'app.kubernetes.io/part-of=my-law', 'runs in the same file share a trunk'):
    assert said in done.stdout, done.stdout
  paths = sorted((tmp_path / 'manifests').glob('*.yaml'))
  commands = []
  for path in paths:
    tree = yaml.safe_load(path.read_text())
    assert JobsetV1alpha2JobSet.from_dict(tree).to_dict() == tree and path.name == f'{tree["metadata"]["name"]}.yaml'
    assert tree['metadata']['labels']['kueue.x-k8s.io/queue-name'] == 'tpus'
    pod = tree['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
    commands.append(pod['containers'][0]['command'])
  assert sum(command.count('then') for command in commands) == 2 * 3  # two trunks, three runs after each
  for said, times in (('--config.data.data_dir="; rm -rf /', 3), ("--config.data.data_dir=$$(HOME) it's\n- a: b", 3),
                      ('--distributed=auto', 8 + 2 * 3)):
    assert sum(command.count(said) for command in commands) == times, said


def test_twelve_runs_as_managed_jobs(tmp_path, env):
  done = _sweep(tmp_path, *SKYPILOT, f'--out={tmp_path}/tasks', env=env)
  assert done.returncode == 0 and 'sky jobs launch' in done.stdout, done.stderr
  tasks = [yaml.safe_load(path.read_text()) for path in (tmp_path / 'tasks').glob('*.yaml')]
  assert len(tasks) == 8 and {task['resources']['accelerators'] for task in tasks} == {'tpu-v4-32'}


ABSENT = '''
from vit_jax.sweeps import Sweep, axis, chain, product

def get_sweep():
  large = {'model.width': 12288, 'model.mlp_dim': 49152}
  mesh = {'system.mesh.fsdp': 16, 'system.mesh.data': 1}  # of the slice, not of the machine where files are written
  return Sweep('configs/vit_b16.py', product([mesh], axis('data.source', 'tfds:not_here'), axis('train.steps', 20_000),
                                             axis('train.epochs', 0), chain([{}], [large])))
'''


def test_a_sweep_that_does_not_fit_is_refused_and_nothing_is_written(tmp_path, env):
  """Neither data nor devices are present. ViT-B/16 fits; with width 12,288, its state alone does not."""
  flags = (*JOBSET, f'--out={tmp_path}/out', '--data_dir=gs://my-bucket/data', '--namespace=team-a')
  done = _sweep(tmp_path, *flags, sweep=ABSENT)
  assert done.returncode == 1 and not (tmp_path / 'out').exists()
  for said in ('width12288: does not fit: needs about ', ', available ', ' GB over the limit', '--tpu=v5e-16',
               'python -m vit_jax.plan --config=configs/vit_b16.py', '--plan=none writes the files without this check'):
    assert said in done.stderr, done.stderr
  assert 'chip-hours at 40% MFU' in done.stdout and '17.18 GB per chip, in width12288 (estimated' in done.stdout
  assert 'to start (assumed: 5 minutes of boot for each of 2 files' in done.stdout and 'list price' in done.stdout
  done = _sweep(tmp_path, *flags, '--plan=none', sweep=ABSENT, env=env)
  assert done.returncode == 0, done.stderr
  out, before = tmp_path / 'out', [f'{i}-{name}.yaml' for i, name in ((1, 'prepare-not-here'), (2, 'first-my-law'))]
  paths = list(out.glob('*.yaml'))
  assert len(paths) == 2 and sorted(path.name for path in (out / 'before').iterdir()) == before
  for path in paths:
    pod = yaml.safe_load(path.read_text())['spec']['replicatedJobs'][0]['template']['spec']['template']
    assert '--config.data.data_dir=/data/data' in pod['spec']['containers'][0]['command']
    assert pod['metadata']['annotations'] == {'gke-gcsfuse/volumes': 'true'}
  for said in ('these files assume that', 'GcsFuseCsiDriver', 'kubectl delete -f', f'kubectl apply -f {out}/before/1-',
               '--status gs://bucket/law', '-n team-a'):
    assert said in done.stdout, done.stdout


def test_a_sweep_whose_data_reach_no_pod_is_refused(tmp_path):
  done = _sweep(tmp_path, *JOBSET, f'--out={tmp_path}/out', sweep=ABSENT)
  assert done.returncode == 1 and not (tmp_path / 'out').exists()
  assert 'data.source=tfds:not_here: no data reach the hosts' in done.stderr and '--data_dir=gs://' in done.stderr


def test_a_bucket_that_is_read_without_a_mount_is_said():
  said = []
  request = sweep_launch.Request('sweep.py', 'law', 'skypilot', slices.find('v4-8'), 'gs://my-bucket/law', 'out')
  display = SimpleNamespace(note=said.append)
  sweep_launch.next_steps(request, [], {'folder:gs://other-bucket/e', 'digits'}, 'law', display)
  assert '  - that service account may read gs://other-bucket/e' in said and not any('digits' in line for line in said)


@pytest.mark.parametrize('flags, said', [
    (('--tpu=v5e-16',), '--tpu: only with --launcher'),
    (SKYPILOT, '--out is missing'),
    ((*JOBSET, '--out=x', '--tpu=v5e-24'), 'the nearest: v5e-16 (16 chips, 4x4) or v5e-32'),
    (('--plan=compile',), '--plan: only with --launcher'),
    ((*JOBSET, '--out=x', '--tpu=v7-16'), '--tpu=v7-16: expected a TPU slice'),
    ((*JOBSET, '--out=x', '--workdir=runs/law'), '--workdir=runs/law: expected a path in a bucket'),
    ((*JOBSET, '--out=x', '--workdir=gs://BUCKET/NAME'), 'replace the name in capitals by that of your bucket'),
    ((*JOBSET, '--out=x', '--data_dir=s3://my-bucket/d'), 'GKE mounts no S3 buckets'),
    ((*JOBSET, '--out=x', '--data_dir=data'), '--data_dir=data: expected gs://BUCKET/FOLDER'),
    (('--status', 'runs/a', 'runs/b'), "'runs/b': unexpected argument"),
    ((*SKYPILOT, '--out=x', '--namespace=y'), '--namespace: not with --launcher=skypilot'),
    ((*JOBSET, '--out=x', '--jobs=2'), '--jobs: not with --launcher=jobset'),
    ((*SKYPILOT, '--out=x', '--image=y'), '--image: not with --launcher=skypilot')])
def test_bad_input_is_refused_before_anything_is_planned(tmp_path, flags, said):
  done = _sweep(tmp_path, *flags)
  assert done.returncode == 1 and said in done.stderr and not done.stdout, done.stderr


FILLED = {'QUEUE': 'tpus', 'IMAGE': 'us-docker.pkg.dev/project/repository/vit-jax:v1', 'ACCOUNT': 'trainer',
          'BUCKET': 'my-bucket', 'NAME': 'Law-1'}
LAUNCHES = sorted({command.arguments for page in pages.PAGES for command in pages.page_commands(page)
                   if any(word.startswith('--launcher=') for word in command.arguments)})


@pytest.mark.slow
@pytest.mark.parametrize('arguments', LAUNCHES, ids=lambda words: words[1].partition('=')[2] + str(len(words)))
def test_commands_of_the_pages_work_once_their_placeholders_are_filled(tmp_path, arguments):
  filled = [re.sub('|'.join(FILLED), lambda match: FILLED[match[0]], word) for word in arguments]
  filled = [word for word in filled if not word.startswith('--out=') and word != '--preflight']
  assert not any(re.search('[A-Z]{4}', word) for word in filled), filled
  done = command_line.run('sweep', *filled, f'--out={tmp_path}/out', '--plan=none', '--dry_run')
  assert done.returncode == 0 and 'chip-hours' in done.stdout, done.stderr


def test_a_preflight_leaves_out_data_that_are_mounted_there_alone(tmp_path, env):
  """As the page's: TFDS reads no bucket. Where buckets are on loopback, all else passes, and the files are written."""
  sweep = ("from vit_jax.sweeps import Sweep\n\ndef get_sweep():\n  return Sweep('experiments/imagenet_law/recipe.py', "
           "[{'train.steps': 9_000}])\n")
  done = _sweep(tmp_path, *JOBSET, f'--out={tmp_path}/out', '--plan=none', '--preflight', '--data_dir=gs://my-bucket/d',
                sweep=sweep, env=env)
  assert 'preflight   without the data, which are read where gs://my-bucket/d is mounted' in done.stdout, done.stderr
  if 'STORAGE_EMULATOR_HOST' in env:
    assert done.returncode == 0 and 'data       tfds:imagenet21k: not tried' in done.stdout, done.stdout
    assert 'preflight  passed, but for the data' in done.stdout and len(list((tmp_path / 'out').glob('*.yaml'))) == 1


def test_a_preflight_finds_what_would_end_the_first_pod(tmp_path, env):
  """In a folder with what the image has. Its bucket cannot be reached from here."""
  sweep = "from vit_jax.sweeps import Sweep\n\ndef get_sweep():\n  return Sweep('configs/quickstart.py', [{}])\n"
  flags = (*SKYPILOT, f'--out={tmp_path}/out', '--plan=none', '--preflight', '--workdir=gs://not-there/law')
  done = _sweep(tmp_path, *flags, sweep=sweep, env=env)
  assert done.returncode == 1 and not (tmp_path / 'out').exists()
  assert 'preflight   quickstart, in a folder with what the image has' in done.stdout, done.stdout + done.stderr
  assert 'error: --workdir' in done.stdout and 'preflight of quickstart: exit code 1' in done.stderr
