"""Models of several labels a picture in use: probabilities, scores, files of other programs, the commands."""

import json
import re

import command_line
import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

import vit_jax
from vit_jax import config, outcomes, records
from vit_jax.errors import UserError
from vit_jax.inspection import run_page, several_labels
from vit_jax.interop import sources, writers
from vit_jax.training import trained

PIXELS = np.random.default_rng(1).integers(0, 256, (60, 4, 4, 1), dtype=np.uint8)
LABELS = (np.random.default_rng(0).random((60, 3)) < (0.6, 0.4, 0.2)).astype(np.uint8)


@pytest.fixture(name='run', scope='module')
def _run(tmp_path_factory):
  c = config.defaults('vit')
  c.model.update(dict(patch_size=2, width=8, depth=1, mlp_dim=8, num_heads=2))
  c.data.source = vit_jax.arrays(PIXELS, LABELS, class_names=('cat', 'dog', 'owl'))
  c.data.batch_size, c.loss.name, c.optimizer.learning_rate = 8, 'sigmoid', 0.05
  c.train.steps, c.schedule.warmup_steps = 4, 0
  return vit_jax.train(c, tmp_path_factory.mktemp('runs') / 'run', quiet=True)


def test_evaluation_equals_that_of_training_and_of_scikit_learn(run, capsys):
  found = vit_jax.evaluate(run)
  s, decisions = found.summary, found.found.predictions
  assert {name: s[name] for name in ('loss', 'f1', 'map', 'map_error')} == {
      name: pytest.approx(value, rel=1e-4) for name, value in run.results['test'].items()}
  assert s['map'] == pytest.approx(metrics.average_precision_score(decisions.labels, decisions.probabilities))
  said = decisions.probabilities > 0.5
  assert s['f1_macro'] == pytest.approx(metrics.f1_score(decisions.labels, said, average='macro', zero_division=0))
  for i, row in enumerate(s['classes']):
    assert row['n'] == decisions.labels[:, i].sum() and row['predicted'] == said[:, i].sum()
    assert row['recall'] == pytest.approx(metrics.recall_score(decisions.labels[:, i], said[:, i]))
  assert sum(b['n'] for b in s['calibration']) == decisions.labels.size
  written = [path.rpartition('/')[2] for path in found.write()]
  assert written == ['test.json']  # no confusion matrix
  with pytest.raises(UserError, match='not taken for another one'):
    _ = found.confusion
  print(found)
  assert 'mean average precision' in capsys.readouterr().out


def test_probabilities_are_of_each_class_in_every_format(run, tmp_path):
  model = trained.load(run.place)
  images = list(PIXELS[:5])
  logits = np.log(model(images)) - np.log1p(-model(images))
  assert np.abs(model(images).sum(axis=1) - 1).max() > 0.05
  weights = sources.read(run.place)
  for to in ('bundle', 'hf', 'stablehlo'):
    out = tmp_path / (f'{to}.stablehlo' if to == 'stablehlo' else to)
    writers.write(weights, out, to)
    again = trained.load(out)
    assert again.several_labels and again.class_names == ('cat', 'dog', 'owl')
    np.testing.assert_allclose(np.log(again(images)) - np.log1p(-again(images)), logits, atol=1e-4)
  assert json.loads((tmp_path / 'hf' / 'config.json').read_text())['problem_type'] == 'multi_label_classification'


def test_data_of_one_label_each_are_refused(run):
  c = config.defaults('vit')
  c.data.source = vit_jax.arrays(PIXELS, LABELS.argmax(axis=1), class_names=('cat', 'dog', 'owl'))
  with pytest.raises(UserError, match='predicts any number of labels, and .* has one label for each picture'):
    vit_jax.evaluate(run, config=c)


def test_classes_above_the_threshold_are_printed(run, tmp_path):
  for i in range(3):
    Image.fromarray(PIXELS[i, :, :, 0]).save(tmp_path / f'{i}.png')
  p = trained.load(run.place)([tmp_path / f'{i}.png' for i in range(3)])
  found = vit_jax.predict(run, tmp_path)
  assert isinstance(found, outcomes.Predictions) and found.classes == [
      tuple(name for name, value in zip(found.class_names, row) if value > 0.5) for row in p]
  least = float(np.sort(p.ravel())[4])
  done = command_line.run('predict', run.place, tmp_path, f'--threshold={least}', '--format=json')
  assert done.returncode == 0, done.stderr
  rows = [json.loads(line) for line in done.stdout.splitlines()]
  assert [len(row['classes']) for row in rows] == (p > least).sum(axis=1).tolist() and len(rows) == 3


def test_a_class_without_examples_has_no_average_precision():
  decisions = several_labels.Decisions(('a', 'b'), np.float32([[0.9, 0.2], [0.1, 0.6]]), np.uint8([[1, 0], [0, 0]]))
  s = several_labels.scores(decisions)
  assert s['map'] == 1 and s['classes'][1]['average_precision'] is None and s['classes'][1]['recall'] is None
  assert s['f1'] == pytest.approx(2 * 1 / (2 + 1))


def test_the_page_has_every_class_and_the_surest_wrong_decisions(run):
  found = vit_jax.evaluate(run)
  path = run_page.write(found.found)
  data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(), re.S)[1])
  decisions, s, rows = found.found.predictions, found.summary, records.read_rows(f'{run.place}/metrics.jsonl')
  assert data['headline'] == f'mean average precision {s["map"]:.2%}, F1 {s["f1"]:.2%} on 12 test pictures'
  for row, expected in zip(data['summary']['classes'], metrics.f1_score(
      decisions.labels, decisions.probabilities > 0.5, average=None, zero_division=0), strict=True):
    assert (row['f1'] or 0) == pytest.approx(expected)
  assert data['curves']['val']['f1'] == [row['f1'] for row in rows if row['split'] == 'val'] != []
  wrong = (decisions.probabilities > 0.5) != (decisions.labels > 0)
  surest = np.where(wrong, np.maximum(decisions.probabilities, 1 - decisions.probabilities), 0).max(axis=1)
  assert [e['confidence'] for e in data['mistakes']] == pytest.approx(sorted(surest[surest > 0], reverse=True))
  places = np.argsort(-surest, kind='stable')
  for example, place in zip(data['mistakes'], places):
    there = [name for name, label in zip(('cat', 'dog', 'owl'), decisions.labels[place]) if label]
    assert example['label'] == (', '.join(there) or 'none of the classes')
    assert (example['predicted'].removeprefix('not ') in there) == example['predicted'].startswith('not ')
    assert example['picture'].startswith('data:image/') and example['rollout'].startswith('data:image/')
