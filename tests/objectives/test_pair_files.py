"""Runs of two towers written for transformers: what is read back, and what transformers computes, is the same."""

import json
import pathlib

import command_line
import numpy as np
import pytest
from PIL import Image
from test_objective_conformance import CLIP, recipe

from vit_jax.inspection import pair_model
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

pytestmark = pytest.mark.slow  # they share two runs
GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
TEXTS = ('the digit one', 'a seven', '')
AS_SIGLIP = {'loss.text.pool': 'last', 'model.pool': 'map', 'model.gelu': 'tanh'}
AS_CLIP = CLIP | {'model.pool': 'cls', 'model.pre_norm': True, 'model.last_norm': 'pooled', 'model.gelu': 'quick',
                  'model.epsilon': 1e-5, 'loss.text.epsilon': 1e-5}


def _train(workdir, changes, tokenizer='bpe'):
  c = recipe('contrast')
  c.update_from_flattened_dict(changes)
  c.data.text.tokenizer, c.data.text.vocab_size = str(tokenizer), 300
  c.data.channels, c.optimizer.learning_rate, c.loss.scale = 3, 0.02, 10.0
  loop.train(run_lib.prepare(run_config.cast(c)), workdir, Display())
  return workdir


@pytest.fixture(name='runs', scope='module')
def _runs(tmp_path_factory):
  folder = tmp_path_factory.mktemp('pairs')
  with np.load(GOLDEN / 'clip.npz') as file:
    (folder / 'clip.json').write_bytes(file['file:tokenizer.json'].tobytes())
  return {'siglip': _train(folder / 'siglip', AS_SIGLIP),
          'clip': _train(folder / 'clip', AS_CLIP, folder / 'clip.json')}


def _logits(pairs, pictures):
  return pairs.scale * pairs.embedder.images(pictures) @ pairs.embedder.texts(TEXTS).T + pairs.bias


@pytest.fixture(name='pictures', scope='module')
def _pictures():
  return np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize('kind', ['siglip', 'clip'])
def test_what_is_read_back_computes_the_same(runs, pictures, tmp_path, kind):
  done = command_line.run('convert', runs[kind], tmp_path / 'out', '--to=hf-pairs')
  assert done.returncode == 0 and f'{kind}, ' in done.stdout and 'both towers, tokenizer' in done.stdout, done.stderr
  own, again = pair_model.load(runs[kind]), pair_model.load(tmp_path / 'out')
  np.testing.assert_array_equal(own.embedder.tokenizer.encode(TEXTS), again.embedder.tokenizer.encode(TEXTS))
  np.testing.assert_allclose(_logits(own, pictures), _logits(again, pictures), atol=1e-5)


@pytest.mark.parametrize('kind', ['siglip', 'clip'])
def test_live_transformers_computes_the_same(runs, pictures, tmp_path, kind):
  torch, transformers = pytest.importorskip('torch'), pytest.importorskip('transformers', minversion='5.23.0')
  assert command_line.run('convert', runs[kind], tmp_path / 'out', '--to=hf-pairs').returncode == 0
  model = {'siglip': transformers.SiglipModel, 'clip': transformers.CLIPModel}[kind].from_pretrained(tmp_path / 'out')
  tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
  own = pair_model.load(runs[kind])
  tokens = tokenizer(list(TEXTS), padding='max_length', truncation=True, return_tensors='pt')['input_ids']
  ours = own.embedder.tokenizer.encode(TEXTS)
  np.testing.assert_array_equal(np.where(ours > 0, tokens, 0) if kind == 'clip' else tokens, ours)
  pixels = np.asarray(own.preprocessing.normalize(pictures)).transpose(0, 3, 1, 2).copy()
  with torch.no_grad():
    theirs = model.eval()(input_ids=tokens, pixel_values=torch.from_numpy(pixels)).logits_per_image.numpy()
  np.testing.assert_allclose(_logits(own, pictures), theirs, atol=1e-4)


@pytest.mark.parametrize('kind', ['siglip', 'clip'])
def test_both_towers_in_one_file(runs, pictures, tmp_path, kind):
  out = tmp_path / 'model.stablehlo'
  done = command_line.run('convert', runs[kind], out, '--to=stablehlo')
  assert done.returncode == 0 and 'both towers and their tokenizer' in done.stdout, done.stderr
  own, found = pair_model.load(runs[kind]), pair_model.load(out)
  assert found.loss == own.loss and found.templates == own.templates
  np.testing.assert_allclose(_logits(own, pictures), _logits(found, pictures), atol=1e-4)
  album = tmp_path / 'album'
  album.mkdir()
  for i, picture in enumerate(pictures):
    Image.fromarray(picture).save(album / f'{i}.png')
  answers = [command_line.run('predict', place, album, '--names=the digit one,a seven', '--format=json').stdout
             for place in (runs[kind], out)]
  ours, theirs = ([json.loads(line)['classes'] for line in answer.splitlines()] for answer in answers)
  assert len(ours) == len(pictures)
  for one, other in zip(ours, theirs, strict=True):
    assert [row['class'] for row in one] == [row['class'] for row in other]
    assert [row['probability'] for row in one] == pytest.approx([row['probability'] for row in other], abs=1e-4)
  asked = command_line.run('search', out, album, '--text=a seven', f'--index={tmp_path}/index.npz', '--format=json')
  assert asked.returncode == 0 and len(json.loads(asked.stdout)['pictures']) == len(pictures), asked.stderr
  plain = command_line.run('predict', out, album)
  assert plain.returncode == 1 and 'It has two towers: give names' in plain.stderr, plain.stderr


def test_what_transformers_does_not_have_is_refused(runs, tmp_path):
  other = _train(tmp_path / 'run', AS_SIGLIP | {'loss.text.pool': 'gap'})
  done = command_line.run('convert', other, tmp_path / 'out', '--to=hf-pairs')
  assert done.returncode == 1 and 'loss.text.pool=gap: a siglip of transformers has last' in done.stderr
  assert not (tmp_path / 'out').exists()
  other = _train(tmp_path / 'bpe', AS_CLIP)
  done = command_line.run('convert', other, tmp_path / 'out', '--to=hf-pairs')
  assert done.returncode == 1 and 'has the number 2, which CLIPModel does not take for an end' in done.stderr
  done = command_line.run('convert', runs['clip'], tmp_path / 'out', '--to=hf-pairs', '--image_size=16')
  assert done.returncode == 1 and '--image_size: is not for --to=hf-pairs' in done.stderr
