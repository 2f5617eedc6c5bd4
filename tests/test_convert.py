"""Conversion of a trained model between a run, a bundle, an exported file and other programs, in new processes."""

import json
import subprocess
import sys

import command_line
import numpy as np
import pytest
from PIL import Image

from vit_jax import interop
from vit_jax.data import pipeline
from vit_jax.errors import UserError
from vit_jax.interop import exported
from vit_jax.training import config as run_config
from vit_jax.training import loop, trained
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display


def _convert(*arguments, **environment):
  return command_line.run('convert', *arguments, env=command_line.ON_CPU | environment)


@pytest.fixture(name='workdir', scope='module')
def _workdir(tmp_path_factory):
  from vit_jax import config
  c = config.defaults('vit')
  c.model.patch_size, c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 4, 16, 2, 32, 2
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate = 32, 16, 1e-2
  workdir = tmp_path_factory.mktemp('run') / 'digits'
  loop.train(run_lib.prepare(run_config.cast(c)), workdir, Display())
  return workdir


@pytest.fixture(name='pictures', scope='module')
def _pictures(tmp_path_factory):
  images, _ = pipeline.open_data(run_config.cast({'family': 'vit'}).data).arrays('test').values()
  folder = tmp_path_factory.mktemp('pictures')
  for i in range(5):
    Image.fromarray(images[i, ..., 0]).save(folder / f'{i}.png')
  return folder


@pytest.mark.parametrize('to', ['bundle', 'hf', 'timm', 'stablehlo'])
def test_predictions_are_the_same_in_every_format(workdir, pictures, tmp_path, to):
  out = tmp_path / ('model.stablehlo' if to == 'stablehlo' else to)
  done = _convert(workdir, out, f'--to={to}')
  assert done.returncode == 0, done.stderr
  assert 'vit, 5,' in done.stdout and '10 classes, pictures of 8x8x1' in done.stdout
  paths = sorted(pictures.iterdir())
  expected = trained.load(workdir)(paths)
  model = trained.load(out)
  assert model.class_names == tuple(map(str, range(10)))
  np.testing.assert_allclose(model(paths, batch_size=2), expected, rtol=0, atol=1e-6)
  assert 'already exists and is not empty' in _convert(workdir, out, f'--to={to}').stderr


def test_an_exported_file_needs_no_model_code(workdir, pictures, tmp_path):
  assert _convert(workdir, tmp_path / 'model.stablehlo', '--to=stablehlo').returncode == 0
  run = ('import runpy, sys; sys.argv = ["predict", *sys.argv[1:]]\n'
         'try: runpy.run_module("vit_jax.predict", run_name="__main__")\n'
         'finally: print(sorted(m for m in sys.modules if m.startswith(("vit_jax.models", "vit_jax.layers", "flax", '
         '"vit_jax.training"))), file=sys.stderr)')
  words = [sys.executable, '-c', run, tmp_path / 'model.stablehlo', pictures, '--format=json', '--top=10']
  done = subprocess.run(words, capture_output=True, text=True, cwd=command_line.ROOT, env=command_line.ON_CPU)
  assert done.returncode == 0 and done.stderr.strip().endswith('[]'), done.stderr
  expected = trained.load(workdir)(sorted(pictures.iterdir()))
  for row, probabilities in zip(map(json.loads, done.stdout.splitlines()), expected, strict=True):
    found = {int(entry['class']): entry['probability'] for entry in row['classes']}
    np.testing.assert_allclose([found[i] for i in range(10)], probabilities, atol=2e-6)


def test_a_damaged_exported_file_is_refused(workdir, tmp_path):
  path = tmp_path / 'model.stablehlo'
  exported.write(interop.read(workdir), path)
  whole = path.read_bytes()
  for content in (b'', whole[:100], whole[:-50], b'PK\x03\x04', whole[:2000] + bytes(99) + whole[2099:]):
    path.write_bytes(content)
    with pytest.raises(UserError, match='not a complete exported model'):
      trained.load(path)
  with pytest.raises(UserError, match='no such file'):
    trained.load(tmp_path / 'nowhere.stablehlo')


@pytest.mark.parametrize('arguments, message', [
    (('only one',), 'expected SRC and OUT'), (('nowhere', 'OUT'), 'nowhere: no such file'),
    (('RUN', 'OUT', '--to=bndle'), "did you mean 'bundle'"),
    (('RUN', 'OUT', '--to=stablehlo'), 'expected a name that ends in .stablehlo'),
    (('RUN', 'OUT', '--to=npz'), 'the original code expects'),
    (('RUN', 'OUT', '--step=3'), 'no checkpoint of'),
    (('hf:a/b/c', 'OUT'), 'hf:a/b/c: download failed'),
])
def test_bad_input(workdir, tmp_path, arguments, message):
  names = {'RUN': workdir, 'OUT': tmp_path / 'out'}
  done = _convert(*(names.get(argument, argument) for argument in arguments))
  assert done.returncode == 1 and message in done.stderr and 'Traceback' not in done.stderr, done.stderr
  assert not (tmp_path / 'out').exists()


def test_a_hub_model_is_read_from_the_cache(workdir, tmp_path):
  """The cache has the layout of huggingface_hub, so no network is needed."""
  pytest.importorskip('huggingface_hub')
  repo = tmp_path / 'models--someone--digits'
  assert _convert(workdir, repo / 'snapshots' / ('0' * 40), '--to=hf').returncode == 0
  (repo / 'refs').mkdir()
  (repo / 'refs' / 'main').write_text('0' * 40)
  offline = {'HF_HUB_OFFLINE': '1', 'HF_HUB_CACHE': str(tmp_path)}
  done = _convert('hf:someone/digits', tmp_path / 'bundle', **offline)
  assert done.returncode == 0, done.stderr
  np.testing.assert_array_equal(interop.read(tmp_path / 'bundle').params['norm']['scale'],
                                interop.read(workdir).params['norm']['scale'])
  done = _convert('hf:someone/else', tmp_path / 'other', **offline)
  assert done.returncode == 1 and 'hf:someone/else: download failed' in done.stderr
