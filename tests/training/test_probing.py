"""A probe during training: what frozen features are worth, as columns of the log."""

import io

import numpy as np
import pytest

import vit_jax
from vit_jax import config, records
from vit_jax.console import Console
from vit_jax.data import device_augment
from vit_jax.errors import UserError
from vit_jax.scaling import points
from vit_jax.training import config as run_config
from vit_jax.training import loop, probing, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display
from vit_jax.transfer import probe


@pytest.fixture(name='recipe')
def _recipe(tiny_config):
  tiny_config.evaluate.probe, tiny_config.train.steps, tiny_config.evaluate.every = 150, 4, 2
  return tiny_config


def _prepare(recipe):
  return run_lib.prepare(run_config.cast(recipe))


def test_it_is_a_linear_probe_on_a_balanced_part_of_the_training_examples(recipe):
  run = _prepare(recipe)
  train_state = state.create(run.model, run.config, run.mesh)
  found = probing.scores(run, train_state.params, train_state.stats, 'val')
  assert list(found) == ['probe/accuracy', 'probe/error', 'knn/accuracy', 'knn/error']
  name = run.data.balanced('train', 150)
  counts = np.bincount(run.data.labels(name))
  assert counts.sum() == 150 and counts.max() - counts.min() <= 2
  normalize = device_augment.normalizer(run.config.data)

  def features(split):
    images, labels = run.data._arrays_after(split, run.data._transforms(split, evaluate=True)).values()
    _, intermediates, _ = run.model.apply(train_state.params, {}, normalize(images))
    return probe.Features(np.asarray(intermediates['pre_logits']), labels)

  train, val = features(name), features('val')
  kernel, bias, _, _ = probe.linear(train, None, 10)
  expected = ((val.features @ kernel + bias).argmax(1) == val.labels).mean()
  assert found['probe/accuracy'] == pytest.approx(expected, abs=2 / len(val.labels)) and expected > 0.4
  assert found['knn/error'] == 1 - found['knn/accuracy'] < 0.6


def test_its_columns_are_metrics_and_a_law_reads_them(recipe, tmp_path):
  recipe.evaluate.metric, recipe.evaluate.patience = 'probe/error', 5
  run, out = _prepare(recipe), io.StringIO()
  loop.train(run, tmp_path / 'run', Display(Console(file=out, width=200)))
  rows = records.read_rows(tmp_path / 'run' / records.METRICS)
  assert all(('probe/error' in row) == (row['split'] != 'train') for row in rows)
  assert 'probe/accuracy' in out.getvalue() and 'probe/error' not in out.getvalue()
  results = records.read_run(tmp_path / 'run')['results']
  assert results['val']['probe/error'] == min(row['probe/error'] for row in rows if row['split'] == 'val')
  read = points.load([tmp_path / 'run'], 'probe/error')
  assert read.metric == 'probe/error' and read.rows[0]['split'] == 'val' and read.rows[0]['objective'] == 'classify'
  assert points.load([tmp_path / 'run'], 'test/probe/error').rows[0]['split'] == 'test'


def test_a_probe_of_one_class_is_refused(recipe):
  recipe.evaluate.probe = 1
  with pytest.raises(UserError, match='evaluate.probe=1: picks examples of one class alone'):
    _prepare(recipe)


def test_a_probe_of_data_without_classes_is_refused():
  c = config.defaults('vit', 'contrast')
  c.data.source = vit_jax.arrays(np.zeros((40, 8, 8, 3), np.uint8), captions=['a'] * 40)
  c.model.patch_size, c.train.steps, c.data.batch_size, c.evaluate.probe = 4, 2, 8, 10
  with pytest.raises(UserError, match='evaluate.probe=10: learns classes, and the data have none; set it to 0'):
    _prepare(c)


def test_without_a_probe_its_metrics_are_refused():
  c = config.defaults('vit')
  c.train.steps, c.evaluate.metric = 2, 'probe/error'
  with pytest.raises(UserError, match="evaluate.metric='probe/error': there is no probe; set evaluate.probe"):
    run_config.check(run_config.cast(c))
