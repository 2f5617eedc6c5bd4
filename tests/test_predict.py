"""A trained model in use: the command and the two-line API agree with the evaluation of the run."""

import csv
import io
import json
import os
import pathlib
import subprocess

import command_line
import numpy as np
import pytest
from PIL import Image

from vit_jax import records
from vit_jax.data import pictures, pipeline
from vit_jax.errors import UserError
from vit_jax.training import config as run_config
from vit_jax.training import loop, trained
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display


@pytest.fixture(name='workdir', scope='module')
def _workdir(tmp_path_factory):
  from vit_jax import config
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool = 4, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 16, 2, 32, 2
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate, c.optimizer.ema_decay = 40, 120, 1e-2, 0.9
  workdir = tmp_path_factory.mktemp('run') / 'digits'
  loop.train(run_lib.prepare(run_config.cast(c)), workdir, Display())
  return workdir


@pytest.fixture(name='album', scope='module')
def _album(tmp_path_factory):
  """Six test digits as files: one in a subfolder, one hidden, and one file that is not a picture."""
  images, labels = pipeline.open_data(run_config.cast({'family': 'vit'}).data).arrays('test').values()
  folder = tmp_path_factory.mktemp('album')
  (folder / 'below').mkdir()
  for i in range(6):
    Image.fromarray(images[i, ..., 0]).save(folder / ('below' if i == 5 else '') / f'{i}.png')
  Image.fromarray(images[6, ..., 0]).save(folder / '.hidden.png')
  (folder / 'broken.png').write_bytes(b'not a picture')
  return folder, images[:6], labels[:6]


def _predict(*arguments):
  return command_line.run('predict', *arguments)


def test_scores_are_those_of_the_run(workdir):
  model, results = trained.load(workdir), records.read_run(workdir)['results']
  images, labels = pipeline.open_data(model.config.data).arrays('test').values()
  probabilities = model(list(images), batch_size=100)
  assert probabilities.shape == (360, 10) and model.step == results['step']
  np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
  assert (probabilities.argmax(1) == labels).mean() == pytest.approx(results['test']['accuracy'], abs=1e-6)
  loss = -np.log(probabilities[np.arange(360), labels]).mean()
  assert loss == pytest.approx(results['test']['loss'], rel=1e-4)  # with the moving average


def test_files_bytes_and_arrays_give_the_same_result(workdir, album):
  model, (folder, images, _) = trained.load(workdir), album
  paths = [folder / f'{i}.png' for i in range(5)]
  expected = model(list(images[:5]))
  np.testing.assert_array_equal(model(paths), expected)
  np.testing.assert_allclose(model([path.read_bytes() for path in paths], batch_size=2), expected, rtol=1e-5)
  assert model([]).shape == (0, 10)
  with pytest.raises(pictures.BadPicture):
    model([folder / 'broken.png'])


def test_the_command(workdir, album):
  folder, images, _ = album
  expected = trained.load(workdir)(list(images))
  done = _predict(workdir, folder, '--format=json', '--top=3', '--batch_size=4')
  assert done.returncode == 0, done.stderr
  assert f'{folder}/broken.png: cannot be read' in done.stderr and 'Traceback' not in done.stderr
  rows = {pathlib.Path(row['path']).name: row['classes'] for row in map(json.loads, done.stdout.splitlines())}
  assert sorted(rows) == [f'{i}.png' for i in range(6)]  # including subfolders, but not hidden files
  for i in range(6):
    best = expected[i].argsort()[::-1][:3]
    assert [prediction['class'] for prediction in rows[f'{i}.png']] == [str(k) for k in best]
    probabilities = [prediction['probability'] for prediction in rows[f'{i}.png']]
    np.testing.assert_allclose(probabilities, expected[i][best], atol=1e-5)

  done = _predict(workdir, folder / '0.png', '--format=csv', '--top=2')
  rows = list(csv.DictReader(io.StringIO(done.stdout)))
  assert [row['rank'] for row in rows] == ['1', '2'] and rows[0]['class'] == str(expected[0].argmax())


def test_attention(workdir, album, tmp_path):
  folder, _, _ = album
  done = _predict(workdir, folder, '--format=csv', '--batch_size=4', f'--attention={tmp_path}/maps')
  assert done.returncode == 0, done.stderr
  written = {path.name for path in (tmp_path / 'maps').iterdir()}
  assert written == {*(f'{i}.png' for i in range(6)), 'distance.png'} and f'{tmp_path}/maps (a file' in done.stderr
  assert len(list(csv.DictReader(io.StringIO(done.stdout)))) == 6 * 5


@pytest.mark.parametrize('arguments, message', [
    ((), 'expected a run folder and pictures'),
    (('nowhere', 'README.md'), 'nowhere: no such file'),
    (('RUN', 'nowhere.png'), 'nowhere.png: no such file or folder'),
    (('RUN', 'README.md'), 'none of the 1 pictures could be read'),
    (('RUN', 'README.md', '--step=7'), 'no checkpoint of step 7'),
])
def test_bad_input(workdir, arguments, message):
  done = _predict(*(workdir if argument == 'RUN' else argument for argument in arguments))
  assert done.returncode == 1 and message in done.stderr and 'Traceback' not in done.stderr


def test_an_older_run_without_its_shape(workdir, tmp_path):
  record = records.read_run(workdir)
  del record['data']['image_shape']
  records.write_run(tmp_path, record)
  (tmp_path / 'checkpoints').symlink_to(workdir / 'checkpoints')
  assert trained.load(tmp_path).model.image_shape == (8, 8, 1)


def test_no_checkpoint(workdir, tmp_path):
  records.write_run(tmp_path, records.read_run(workdir))
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(UserError, match='no checkpoint yet'):
    trained.load(tmp_path)


@pytest.mark.parametrize('flags, said', [
    (['--caption', '--ask=why?'], '--caption and --ask: one at a time'),
    (['--caption', '--names=a,b'], '--names and --caption: one at a time'),
    (['--reconstruct', '--attention'], '--reconstruct and --attention: one at a time'),
    (['--attention', '--names=a,b', '--ask=why?'], '--attention and --names and --ask: one at a time'),
    (['--beams=4'], '--beams=4: is about the texts of --caption or --ask'),
    (['--names=a,b', '--ask=why?', '--beams=2'], '--beams=2: is about the texts'),
    (['--template={}'], 'is about the names of --names')])
def test_flags_that_would_have_no_effect_are_refused(flags, said):
  done = command_line.run('predict', 'no-run', 'no-picture.png', *flags)
  assert done.returncode == 1 and said in done.stderr


def test_nobody_reads_to_the_end():
  """As after `| head`: no traceback."""
  reader, writer = os.pipe()
  os.close(reader)
  done = subprocess.run(command_line.command('listing'), stdout=writer, stderr=subprocess.PIPE, text=True,
                        cwd=command_line.ROOT, env=command_line.ON_CPU)
  os.close(writer)
  assert (done.returncode, done.stderr) == (1, '')
