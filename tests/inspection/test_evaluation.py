"""Evaluating a finished run gives its own results and counts every example once, whatever the batch size."""

import dataclasses
import json

import command_line
import numpy as np
import pytest
from PIL import Image

from vit_jax import interop, provenance, records
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.inspection import evaluation, predictions, run_page
from vit_jax.interop import bundle, exported
from vit_jax.training import trained


@pytest.fixture(name='model', scope='module')
def _model(workdir):
  return trained.load(workdir)


@pytest.mark.parametrize('split', ['test', 'val'])
def test_scores_equal_those_of_the_run(workdir, split):
  summary = evaluation.evaluate(workdir, split).summary
  results = records.read_run(workdir)['results']
  assert summary['accuracy'] == pytest.approx(results[split]['accuracy'], abs=1e-9)
  assert summary['loss'] == pytest.approx(results[split]['loss'], rel=1e-4)
  assert summary['examples'] == sum(map(sum, summary['confusion'])) == {'test': 360, 'val': 144}[split]


def test_other_code_than_that_of_the_run_is_said_and_recorded(workdir, monkeypatch, tmp_path, capsys):
  own = evaluation.evaluate(workdir)
  assert own.summary['code'] == own.summary['trained_by_code'] and own.summary['git'] == provenance.commit()
  evaluation.show(own, [])
  assert 'trained by code' not in capsys.readouterr().out
  monkeypatch.setattr(provenance, 'code', lambda files=(): 'other')
  found = evaluation.evaluate(workdir)
  evaluation.show(found, evaluation.write(found, tmp_path))
  assert f'note: trained by code {own.summary["code"]}, scored by code other' in capsys.readouterr().out
  assert json.loads((tmp_path / 'test.json').read_text())['code'] == 'other'


@pytest.mark.parametrize('batch_size', [7, 360, 1000])
def test_every_example_counts_once_and_in_order(model, batch_size):
  data = predictions.open_data(model, model.config.data)
  images, labels = data.arrays('test').values()
  found = predictions.of_split(model, data, 'test', batch_size)
  np.testing.assert_array_equal(found.places, np.arange(360))
  np.testing.assert_array_equal(found.labels, labels)
  np.testing.assert_array_equal(found.predicted, model(list(images)).argmax(1))


def test_the_gallery_keeps_the_most_confident_mistakes(model):
  data = predictions.open_data(model, model.config.data)
  gallery = predictions.Gallery(data, 'test', mistakes=5, right=3)
  found = predictions.of_split(model, data, 'test', 32, see=gallery.see)
  wrong = np.flatnonzero(found.rank > 0)
  most = wrong[np.argsort(-found.confidence[wrong], kind='stable')][:5]
  images = data.arrays('test')['image']
  assert len(wrong) > 5 and len(gallery.mistakes) == 5
  for example, i in zip(gallery.mistakes, most):
    assert (example.label, example.predicted) == (found.labels[i], found.predicted[i])
    np.testing.assert_array_equal(example.picture, images[i])
    assert example.where == data.where('test', i)
  assert len({example.label for example in gallery.right}) == 3
  assert all(example.label == example.predicted for example in gallery.right)


@pytest.fixture(name='album')
def _album(tmp_path, model):
  """(folder, images): 3 test digits each of the classes 9, 3 and 5, in folders named after the classes."""
  images, labels = predictions.open_data(model, model.config.data).arrays('test').values()
  for label in (9, 3, 5):
    (tmp_path / 'test' / str(label)).mkdir(parents=True)
    (tmp_path / 'train' / str(label)).mkdir(parents=True)
    for k, i in enumerate(np.flatnonzero(labels == label)[:3]):
      Image.fromarray(images[i, ..., 0]).save(tmp_path / 'test' / str(label) / f'{k}.png')
      Image.fromarray(images[i, ..., 0]).save(tmp_path / 'train' / str(label) / f'{k}.png')
  return tmp_path, [images[np.flatnonzero(labels == label)[:3]] for label in (3, 5, 9)]


def test_other_data_is_matched_by_the_names_of_its_classes(workdir, model, album):
  folder, images = album
  config = DataConfig(source=f'folder:{folder}', val_examples=0)
  found = evaluation.evaluate(workdir, 'test', config)
  assert list(found.predictions.labels) == [3] * 3 + [5] * 3 + [9] * 3
  np.testing.assert_array_equal(found.predictions.predicted, model(list(np.concatenate(images))).argmax(1))
  (folder / 'test' / '3').rename(folder / 'test' / 'three')
  (folder / 'train' / '3').rename(folder / 'train' / 'three')
  with pytest.raises(UserError, match="does not know the class 'three'"):
    evaluation.evaluate(workdir, 'test', config)


def test_a_bundle_and_an_exported_file_score_like_their_run(workdir, model, tmp_path):
  weights = interop.read(workdir)
  bundle.write(weights, tmp_path / 'bundle')
  exported.write(weights, tmp_path / 'model.stablehlo')
  of_run = evaluation.evaluate(workdir).summary
  for place in (tmp_path / 'bundle', tmp_path / 'model.stablehlo'):
    with pytest.raises(UserError, match='does not say what data'):
      evaluation.evaluate(place)
    found = evaluation.evaluate(place, config=model.config.data)
    assert found.summary['accuracy'] == of_run['accuracy']
    assert found.summary['loss'] == pytest.approx(of_run['loss'], rel=1e-4)
    written = {path.name for path in evaluation.write(found)}
    assert written == {'test.json', 'test-confusion.png'} and 'correct (95%' in run_page.render(found)


def test_pictures_are_cropped_and_resized_as_the_model_expects(model, album):
  """With a centre crop and an interpolation that are not in the config of the data."""
  own = dataclasses.replace(model, preprocessing=dataclasses.replace(
      model.preprocessing, crop=0.7, interpolation='bicubic', mean=(0.2,)))
  folder, images = album
  data = predictions.open_data(own, DataConfig(source=f'folder:{folder}', val_examples=0))
  found = predictions.of_split(own, data, 'test', 4)
  probabilities = own(list(np.concatenate(images)))
  np.testing.assert_allclose(found.confidence, probabilities.max(1), rtol=1e-5)
  assert not np.allclose(probabilities, model(list(np.concatenate(images))), atol=1e-3)


def test_unreadable_pictures_are_named_and_not_counted(workdir, album):
  folder, _ = album
  bad = folder / 'test' / '5' / '1.png'
  bad.write_bytes(bad.read_bytes()[:45])
  config = DataConfig(source=f'folder:{folder}', val_examples=0, on_error='skip')
  found = evaluation.evaluate(workdir, 'test', config)
  assert list(found.predictions.places) == [0, 1, 2, 3, 5, 6, 7, 8] and found.summary['examples'] == 8
  assert len(found.summary['unreadable']) == 1 and '5/1.png' in found.summary['unreadable'][0]
  with pytest.raises(UserError, match='1.png'):
    evaluation.evaluate(workdir, 'test', dataclasses.replace(config, on_error='stop'))
  for path in folder.glob('test/*/*.png'):
    path.write_bytes(path.read_bytes()[:45])  # its size can still be read
  with pytest.raises(UserError, match='none of the 9 pictures'):
    evaluation.evaluate(workdir, 'test', config)


def test_an_empty_split_is_an_error(workdir, album):
  with pytest.raises(UserError, match="split 'val' of .* is empty"):
    evaluation.evaluate(workdir, 'val', DataConfig(source=f'folder:{album[0]}', val_examples=0))


def _main(*flags):
  return command_line.run('main', *flags)


def test_the_command(workdir, tmp_path):
  done = _main(f'--evaluate={workdir}', '--report', '--split=val', f'--out={tmp_path}/out')
  assert done.returncode == 0, done.stderr
  summary = json.loads((tmp_path / 'out' / 'val.json').read_text())
  assert summary['split'] == 'val' and f'accuracy {summary["accuracy"]:.2%}' in done.stdout
  assert f'report       {workdir}/report.html' in done.stdout and '144 val pictures correct' in (
      workdir / 'report.html').read_text()
  assert (tmp_path / 'out' / 'val-confusion.png').read_bytes().startswith(b'\x89PNG')


@pytest.mark.parametrize('flags, message', [
    (['--evaluate'], '--evaluate of which run?'),
    (['--evaluate', '--config=configs/quickstart.py', '--workdir=nowhere'], 'nowhere: no run there; the same command'),
    (['--evaluate=nowhere'], 'nowhere: no such file'),
    (['--report=nowhere', '--evaluate=elsewhere'], 'one run at a time'),
    (['--report', '--config=configs/quickstart.py', '--distributed=auto'], 'give --report=WORKDIR after the run'),
    (['--evaluate=nowhere', '--split=tset'], '--split=tset'),
    (['--report=nowhere', '--out=out'], '--out=out: is where --evaluate writes'),
    (['--config=configs/quickstart.py', '--classes=order'], '--classes=order: is for --evaluate or --report=RUN'),
])
def test_bad_input(flags, message):
  done = _main(*flags)
  assert done.returncode == 1 and message in done.stderr and 'Traceback' not in done.stderr
