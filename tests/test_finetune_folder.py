"""Somebody's own pictures, as they come: from a folder to predictions, on frozen features and with all of the model."""

import json
import pathlib

import command_line
import jax
import numpy as np
import pytest
from PIL import Image

import vit_jax
from vit_jax import models
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import bundle, hub
from vit_jax.interop.weights import Weights

ROTATED = Image.Exif()
ROTATED[0x0112] = 6  # to be turned by a quarter


@pytest.fixture(name='pets', scope='module')
def _pictures(tmp_path_factory):
  """Pieces of scikit-learn's two photographs, one dark and one bright, a class each; one is damaged, two are hidden."""
  from sklearn.datasets import load_sample_images
  folder, rng = tmp_path_factory.mktemp('pictures'), np.random.default_rng(0)
  for name, photograph, least in zip(('temple', 'flower'), load_sample_images().images, (0, 128), strict=True):
    photograph = photograph // 2 + np.uint8(least)
    (folder / name / '.cache').mkdir(parents=True)
    for i in range(30):
      height, width = rng.integers(60, 200, 2)
      top, left = rng.integers(0, photograph.shape[0] - height), rng.integers(0, photograph.shape[1] - width)
      picture, place = Image.fromarray(photograph[top:top + height, left:left + width]), folder / name / f'{i:02}'
      if i % 5 == 0:
        picture.rotate(90, expand=True).save(place.with_suffix('.jpg'), exif=ROTATED)
      elif i % 5 == 1:
        picture.convert('L').save(place.with_suffix('.JPEG'))
      elif i % 5 == 2:
        picture.putalpha(200)
        picture.save(place.with_suffix('.png'))
      elif i % 5 == 3:
        picture.convert('P').save(place.with_suffix('.png'))
      else:
        picture.save(place.with_suffix('.jpg'))
    picture.save(folder / name / '.hidden.png')
    picture.save(folder / name / '.cache' / 'thumbnail.png')
  whole = (folder / 'flower' / '04.jpg').read_bytes()
  (folder / 'flower' / '04.jpg').write_bytes(whole[:len(whole) // 3])
  (folder / 'flower' / 'notes.txt').write_text('not a picture')
  return folder


@pytest.fixture(name='weights', scope='module')
def _weights(tmp_path_factory):
  """A backbone at random, as a bundle for pictures of 32 x 32: its features are poor, and tell dark from bright."""
  model = models.vit.Config(patch_size=8, width=24, depth=1, mlp_dim=48, num_heads=2, pool='gap')
  params, _ = jax.jit(models.PureModel('vit', model, (32, 32, 3), 7).init)(jax.random.key(0))
  fields = dict(patch_size=8, width=24, depth=1, mlp_dim=48, num_heads=2, pool='gap')
  folder = tmp_path_factory.mktemp('weights')
  bundle.write(Weights('random', 'vit', fields, jax.device_get(params), {}, Preprocessing((32, 32))), folder)
  return folder


def _command(module, *arguments):
  done = command_line.run(module, *arguments)
  assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stdout + done.stderr
  return done.stdout


def _predicted(bundle_folder, pets):
  """{file: class} of all pictures but the damaged one."""
  lines = _command('predict', bundle_folder, pets, '--format=json', '--top=1').splitlines()
  told = {pathlib.Path(row['path']): row['classes'][0]['class'] for row in map(json.loads, lines)}
  assert len(told) == 59 and not any('hidden' in path.name or '.cache' in path.parts for path in told)
  return told


@pytest.mark.slow
def test_from_a_folder_to_predictions(pets, weights, tmp_path):
  recipe = ['--config=configs/finetune_folder.py', f'--config.data.source=folder:{pets}', '--workdir=' + str(tmp_path),
            f'--config.pretrained.path={weights}', '--config.train.epochs=30', '--config.optimizer.learning_rate=3e-3']
  said = _command('main', *recipe)
  assert said.index('estimate') < said.index('k-NN') < said.index('linear probe') < said.index('use it')
  assert '04.jpg' in said and 'left out' in said
  line, = (line for line in said.splitlines() if line.startswith('use it'))
  place = line.split()[5]
  right = [path.parent.name == name for path, name in _predicted(place, pets).items()]
  assert np.mean(right) > 0.8
  shown = _command('main', *recipe, '--evaluate', '--report')
  assert 'probe/bundle: test of ' in shown and 'calibration error' in shown and 'probe/bundle/report.html' in shown
  line, = (line for line in said.splitlines() if line.startswith('train all'))
  assert '--config.pretrained.probe=never' in line
  said = _command('main', *recipe, '--config.pretrained.probe=never')
  assert '(new: head)' in said and f'bundle       {tmp_path}/bundle' in said
  right = [path.parent.name == name for path, name in _predicted(tmp_path / 'bundle', pets).items()]
  assert np.mean(right) > 0.8


def test_no_weights_to_be_had(pets):
  done = command_line.run('main', '--config=configs/finetune_folder.py', f'--config.data.source=folder:{pets}',
                          env=command_line.ON_CPU | {'HF_HUB_OFFLINE': '1', 'HF_HOME': str(pets / '.hf')})
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert '--config.pretrained.path=PATH' in done.stderr and 'hf:timm/vit_small' in done.stderr


def test_the_folder_is_looked_at_before_weights_are_fetched(tmp_path, monkeypatch):
  monkeypatch.setattr(hub, 'fetch', lambda *_: pytest.fail('asked for weights'))
  with pytest.raises(UserError, match='folder:.*nowhere: no such folder'):
    vit_jax.train('configs/finetune_folder.py', tmp_path / 'run', **{'data.source': f'folder:{tmp_path}/nowhere'})
