import json
import shutil

import jax
import numpy as np
import pytest

from vit_jax import config, records, schema
from vit_jax.errors import UserError
from vit_jax.training import config as run_config
from vit_jax.training import loop, run_folder, trained
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display
from vit_jax.transfer import distillation

LABEL, STUDENT, TOKEN, TEACHER = (np.random.default_rng(i).standard_normal((4, 5)).astype(np.float32) for i in range(4))


def _log_softmax(x):
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_hard_labels_are_the_decisions_of_the_teacher():
  """Touvron et al. 2021a, eq. 3, on the two heads of a DeiT and on the single head of another model."""
  config = distillation.DistillConfig('teacher')
  targets, rows, decisions = np.eye(5, dtype=np.float32)[[0, 1, 2, 3]], np.arange(4), TEACHER.argmax(-1)
  intermediates = {'class_logits': STUDENT, 'teacher_logits': TOKEN}
  expected = -0.5 * _log_softmax(STUDENT)[rows, rows] - 0.5 * _log_softmax(TOKEN)[rows, decisions]
  ours = distillation.per_example(config, 'softmax', (STUDENT + TOKEN) / 2, intermediates, targets, TEACHER)
  np.testing.assert_allclose(ours, expected, rtol=1e-5)
  expected = -0.5 * _log_softmax(STUDENT)[rows, rows] - 0.5 * _log_softmax(STUDENT)[rows, decisions]
  np.testing.assert_allclose(distillation.per_example(config, 'softmax', STUDENT, {}, targets, TEACHER), expected,
                             rtol=1e-5)


def test_soft_labels_are_the_probabilities_of_the_teacher():
  """Eq. 2: a divergence that is zero if both agree, scaled by the square of the temperature."""
  config = distillation.DistillConfig('teacher', 'soft', weight=0.1, temperature=3.0)
  targets = np.eye(5, dtype=np.float32)[[0, 1, 2, 3]]
  theirs, ours = _log_softmax(TEACHER / 3), _log_softmax(STUDENT / 3)
  divergence = (np.exp(theirs) * (theirs - ours)).sum(-1)
  expected = -0.9 * (_log_softmax(STUDENT) * targets).sum(-1) + 0.1 * 9 * divergence
  np.testing.assert_allclose(distillation.per_example(config, 'softmax', STUDENT, {}, targets, TEACHER), expected,
                             rtol=1e-5)
  alone = distillation.DistillConfig('teacher', 'soft', weight=1.0)
  alone = distillation.per_example(alone, 'softmax', TEACHER, {}, targets, TEACHER)
  np.testing.assert_allclose(alone, 0, atol=1e-6)


def _recipe(family, model, **changes):
  c = config.defaults(family)
  c.model.update(model)
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate = 40, 80, 1e-2
  c.evaluate.every = 40
  c.update(changes)
  return c


DEIT = dict(patch_size=4, width=16, depth=1, mlp_dim=32, num_heads=2)


@pytest.fixture(name='cnn', scope='module')
def _cnn(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('teacher') / 'cnn'
  c = _recipe('resnet', dict(block='basic', depths=(1,), widths=(16,), stem='full', stem_width=16))
  loop.train(run_lib.prepare(run_config.cast(c)), workdir, Display())
  return workdir


def _taught(cnn, **distill):
  return run_config.cast(_recipe('deit', DEIT, distill={'teacher': str(cnn), **distill}))


@pytest.mark.slow
def test_a_cnn_teaches_a_deit(cnn, tmp_path):
  """Trained only on the teacher's decisions, the student learns to decide like the teacher, right or wrong."""
  run = run_lib.prepare(_taught(cnn, weight=1.0))
  loop.train(run, tmp_path / 'run', Display())
  record = records.read_run(tmp_path / 'run')
  assert record['teacher']['config_hash'] == records.read_run(cnn)['config_hash']
  assert len(record['teacher']['digest']) == 16
  images, labels = run.data.arrays('train').values()
  student, teacher = (trained.load(folder) for folder in (tmp_path / 'run', cnn))
  decisions = teacher(list(images)).argmax(-1)
  logits, intermediates, _ = jax.jit(student.model.apply, static_argnums=(4,))(
      student.params, student.stats, (images / 127.5 - 1).astype(np.float32), None, ())
  assert (intermediates['teacher_logits'].argmax(-1) == decisions).mean() > 0.6
  assert not np.any(student.params['head']['bias'])  # the labels have weight 0
  mean = (intermediates['class_logits'] + intermediates['teacher_logits']) / 2
  np.testing.assert_allclose(logits, mean, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_a_copy_of_its_teacher_and_with_no_other(cnn, tmp_path):
  """As if it had never been stopped; also a folder of an older version, which knew the teacher by its folder."""
  run, folder = run_lib.prepare(_taught(cnn)), tmp_path / 'run'
  loop.train(run, folder, Display())
  undisturbed = (folder / 'metrics.jsonl').read_bytes()
  for step in sorted(int(path.name) for path in (folder / 'checkpoints').iterdir() if path.name.isdigit())[1:]:
    shutil.rmtree(folder / 'checkpoints' / str(step))
  record = records.read_run(folder)
  record['status'] = record.pop('results') and 'running'
  records.write_run(folder, record)

  teacher = tmp_path / 'elsewhere'
  shutil.copytree(cnn, teacher)
  copied = run_lib.prepare(_taught(teacher))
  assert copied.config_hash == run.config_hash != run_config.run_hash(_taught(cnn))
  plain = schema.plain(_taught(teacher))
  older = record | {'config': plain, 'config_hash': run_config.run_hash(run_config.cast(plain))}
  for there in (older, record):
    records.write_run(folder, there)
    assert run_folder.finished_results(copied, folder) is None

  c = _recipe('resnet', dict(block='basic', depths=(1,), widths=(16,), stem='full', stem_width=16), seed=1)
  c.train.steps, c.evaluate.every = 4, 4
  other = tmp_path / 'other'
  loop.train(run_lib.prepare(run_config.cast(c)), other, Display())
  with pytest.raises(UserError, match=r"holds another run .*Here distill.digest: '\w+', there '\w+'"):
    run_folder.finished_results(run_lib.prepare(_taught(other)), folder)
  with pytest.raises(UserError, match=f'expected a teacher with distill.digest={run.config.distill.digest}, got'):
    run_lib.prepare(_taught(other, digest=run.config.distill.digest))
  shutil.rmtree(teacher)
  shutil.copytree(other, teacher)  # another one in its place
  records.write_run(folder, older)
  with pytest.raises(UserError, match='the teacher is another one'):
    run_folder.finished_results(run_lib.prepare(_taught(teacher)), folder)
  records.write_run(folder, record)

  shutil.rmtree(teacher)
  shutil.copytree(cnn, teacher)
  loop.train(copied, folder, Display())
  assert (folder / 'metrics.jsonl').read_bytes() == undisturbed


@pytest.mark.parametrize('distill, message', [
    (dict(teacher='nowhere'), 'distill.teacher=nowhere: no finished run there'),
    (dict(weight=0.3), r'distill.weight=0.3: there is no teacher'),
    (dict(teacher='CNN', weight=1.5), 'distill.weight=1.5: must be from 0 to 1'),
    (dict(teacher='CNN', temperature=0.0), 'distill.temperature=0.0: must be from 0.01 to 1,000'),
    (dict(teacher='OTHER'), "it does not know the class '0' and 9 others"),
])
def test_bad_input(cnn, tmp_path, distill, message):
  other = json.loads((cnn / 'run.json').read_text())
  other['data']['classes'] = ['cat', 'dog']
  shutil.copytree(cnn, tmp_path / 'other')
  (tmp_path / 'other' / 'run.json').write_text(json.dumps(other))
  places = {'CNN': str(cnn), 'OTHER': str(tmp_path / 'other')}
  if 'teacher' in distill:
    distill = dict(distill, teacher=places.get(distill['teacher'], distill['teacher']))
  with pytest.raises(UserError, match=message):
    run_lib.prepare(run_config.cast(_recipe('deit', DEIT, distill=distill)))
