"""A run's temperature: fitted to val after training, kept with the run, and used wherever the model is."""

import json

import numpy as np
import pytest
import yaml

from vit_jax import config, records
from vit_jax.inspection import evaluation
from vit_jax.interop import bundle, sources, writers
from vit_jax.training import config as run_config
from vit_jax.training import loop, trained
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display


def recipe(**evaluate):
  c = config.defaults('vit')
  c.model.patch_size, c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 4, 16, 1, 32, 2
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate, c.loss.label_smoothing = 40, 40, 1e-2, 0.3
  c.evaluate.every = 40
  c.evaluate.update(evaluate)
  return run_config.cast(c)


@pytest.fixture(name='runs', scope='module')
def _runs(tmp_path_factory):
  """(without, with) a temperature: the same training, label-smoothed, so that it is underconfident."""
  folder = tmp_path_factory.mktemp('runs')
  for name, given in (('plain', {}), ('fitted', {'calibrate': 100})):
    loop.train(run_lib.prepare(recipe(**given)), folder / name, Display())
  return folder / 'plain', folder / 'fitted'


def test_training_and_what_is_logged_stay_as_they_are(runs):
  plain, fitted = runs
  assert (plain / 'metrics.jsonl').read_bytes() == (fitted / 'metrics.jsonl').read_bytes()
  assert 'calibration' not in records.read_run(plain)['results']


def test_it_is_used_wherever_the_model_is(runs, tmp_path):
  plain, fitted = (trained.load(place) for place in runs)
  found = records.read_run(runs[1])['results']['calibration']
  assert fitted.temperature == found['temperature'] < 0.95 and plain.temperature == 1.0 and found['examples'] == 144
  pictures = np.random.default_rng(0).integers(0, 17, (5, 8, 8, 1)).astype(np.uint8) * 15
  logits = np.asarray(plain.model.apply(plain.params, plain.stats, plain.preprocessing.normalize(pictures))[0])
  right = np.exp(logits / found['temperature'])
  right /= right.sum(1, keepdims=True)
  np.testing.assert_allclose(fitted(pictures), right, atol=1e-5)
  assert (fitted(pictures).argmax(1) == plain(pictures).argmax(1)).all()
  weights = sources.read(runs[1])
  for name, to in (('bundle', 'bundle'), ('m.stablehlo', 'stablehlo')):
    writers.write(weights, tmp_path / name, to)
    model = trained.load(tmp_path / name)
    assert model.temperature == found['temperature']
    np.testing.assert_allclose(model(pictures), right, atol=1e-5)


def test_evaluation_shows_both_and_keeps_the_loss_plain(runs):
  (plain, fitted), row = (evaluation.evaluate(place).summary for place in runs), records.read_run(runs[0])['results']
  assert fitted['loss'] == pytest.approx(plain['loss'], abs=1e-5) == pytest.approx(row['test']['loss'], abs=1e-5)
  assert fitted['ece_before'] == pytest.approx(plain['ece'], abs=1e-3) and fitted['ece'] < plain['ece'] / 2
  assert 'ece_before' not in plain and 'temperature' not in plain
  found = records.read_run(runs[1])['results']['calibration']['test']
  assert found['after']['ece'] == pytest.approx(fitted['ece'], abs=1e-3)
  assert found['before']['loss'] == pytest.approx(plain['loss'], abs=1e-5)


def test_it_is_said(runs, tmp_path, capfd):
  weights = sources.read(runs[1])
  bundle.write(weights, tmp_path / 'bundle')
  card = (tmp_path / 'bundle' / 'README.md').read_text()
  said = f'{weights.temperature:.4g}: logits are divided by it before they become probabilities; fitted to 144 pictures'
  assert f'| temperature | {said} of val' in card and 'groups of people' in card and 'adversarial ones, and' in card
  metadata = yaml.safe_load(card.split('---\n')[1])
  assert 'expected_calibration_error' in metadata['metrics']
  writers.write(weights, tmp_path / 'timm', 'timm')
  assert f'divide them by {weights.temperature:.6g} (--to=timm has no place' in capfd.readouterr().err
  evaluation.show(evaluation.evaluate(runs[1]))
  assert f'without the temperature {weights.temperature:.3g}): ' in capfd.readouterr().out
  Display().summary(records.read_run(runs[1])['results'], run_lib.prepare(recipe()).objective, runs[1])
  assert 'calibrated   temperature 0.' in capfd.readouterr().out


def test_a_small_val_fits_none_and_a_damaged_file_is_refused(runs, tmp_path):
  run = run_lib.prepare(recipe(calibrate=145))
  from vit_jax.errors import UserError
  from vit_jax.training import calibrating
  assert not calibrating.wanted(run) and calibrating.wanted(run_lib.prepare(recipe(calibrate=144)))
  writers.write(sources.read(runs[1]), tmp_path / 'b', 'bundle')
  fields = json.loads((tmp_path / 'b' / 'model.json').read_text())
  (tmp_path / 'b' / 'model.json').write_text(json.dumps(fields | {'temperature': 0}))
  with pytest.raises(UserError, match='temperature=0: expected a positive number'):
    sources.read(tmp_path / 'b')
