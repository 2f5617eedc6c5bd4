"""Two towers: published sizes, evaluation on fixed candidates, frozen towers, and use from training to search."""

import io
import json
import os
import pathlib
import time

import command_line
import jax
import numpy as np
import pytest
from pages import page_data
from PIL import Image

import vit_jax
from vit_jax import config, models, records
from vit_jax.console import Console
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.data.text import TextConfig
from vit_jax.errors import UserError
from vit_jax.inspection import evaluation, pair_model, picture_index, run_page, words_page
from vit_jax.models import PureModel, text, vit
from vit_jax.objectives import contrast, pair_scores
from vit_jax.optimisation import layerwise, trainable
from vit_jax.training import config as run_config
from vit_jax.training import loop
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

COLOURS = {'red': (220, 30, 30), 'green': (20, 190, 40), 'blue': (40, 60, 230), 'white': (240, 240, 240)}
SHAPES = ('left', 'right', 'top', 'all')
NAMES = tuple(f'{colour} {shape}' for colour in COLOURS for shape in SHAPES)


def _picture(name, rng):
  """8 x 8 pixels: half of it, or all, in a colour."""
  colour, shape = name.split()
  half = {'left': np.s_[:, :4], 'right': np.s_[:, 4:], 'top': np.s_[:4], 'all': np.s_[:]}[shape]
  pixels = np.zeros((8, 8, 3))
  pixels[half] = COLOURS[colour]
  return (pixels + rng.normal(0, 12, pixels.shape)).clip(0, 255).astype(np.uint8)


def _source(count=640):
  rng = np.random.default_rng(0)
  labels = np.arange(count) % len(NAMES)
  return vit_jax.arrays(np.stack([_picture(NAMES[i], rng) for i in labels]), labels, class_names=NAMES,
                        captions=[f'a {NAMES[i]} square' for i in labels])


def _recipe(family='vit', **changes):
  c = config.defaults(family, 'contrast')
  if family == 'vit':
    c.model.update(dict(patch_size=4, width=32, depth=2, mlp_dim=64, num_heads=2, pool='gap'))
  c.loss.text.update(dict(width=32, depth=2, mlp_dim=64, num_heads=2, pool='gap'))
  c.loss.templates = ('a {} square',)
  c.data.source, c.data.batch_size, c.data.text.length = _source(), 64, 24
  c.optimizer.learning_rate, c.train.steps, c.evaluate.every = 3e-3, 120, 60
  c.update_from_flattened_dict(changes)
  return c


def _run(**changes):
  return run_lib.prepare(run_config.cast(_recipe(**changes)))


def _train(run, workdir):
  return loop.train(run, workdir, Display(Console(file=io.StringIO())))


@pytest.fixture(name='workdir', scope='module')
def _workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run') / 'pairs'
  _train(_run(), workdir)
  return workdir


@pytest.fixture(name='album', scope='module')
def _album(tmp_path_factory):
  """A picture of each name, one in a folder below, and a file that is no picture."""
  folder, rng = tmp_path_factory.mktemp('album'), np.random.default_rng(1)
  (folder / 'below').mkdir()
  for name in NAMES:
    Image.fromarray(_picture(name, rng)).save(folder / ('below' if name == 'blue all' else '') / f'{name}.png')
  (folder / 'broken.png').write_bytes(b'not a picture')
  return folder


# OpenCLIP's model profiles: million parameters and GFLOPs of the image and the text tower.
SIGLIP, CLIP = dict(pool='map'), dict(pre_norm=True, last_norm='pooled')
PUBLISHED = {
    'ViT-B-16-SigLIP': ('B/16', SIGLIP, 'siglip_b', 64, 32_000, None, (92.88, 35.42), (110.27, 11.02)),
    'ViT-B-16': ('B/16', CLIP, 'clip_b', 77, 49_408, 512, (86.19, 35.13), (63.43, 5.96)),
    'ViT-L-14': ('L/14', CLIP, 'clip_l', 77, 49_408, 768, (303.97, 162.03), (123.65, 13.30)),
}


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes(name):
  size, image, texts, length, vocab_size, width, *expected = PUBLISHED[name]
  form = {} if image is SIGLIP else {'causal': True, 'pool': 'end'}
  options = contrast.Config(width=width, text=text.Config(**text.SIZES[texts], vocab_size=vocab_size, **form))
  objective = contrast.Contrast(options, TextConfig(length=length))
  model = PureModel('vit', vit.Config(**vit.size(size), **image), (224, 224, 3), 0, objective=objective)
  for (params, forward), (millions, giga) in zip(objective.parts(model).values(), expected, strict=True):
    assert params / 1e6 == pytest.approx(millions, rel=1e-3) and forward / 1e9 == pytest.approx(giga, rel=2e-3)


@pytest.mark.slow
def test_it_learns_names_and_is_scored(workdir):
  """All by names that it never saw as labels; equal captions are right answers."""
  record, rows = records.read_run(workdir), records.read_rows(workdir / records.METRICS)
  test = rows[-1]
  assert test['split'] == 'test' and test['zero_shot@1'] > 0.9 and test['text_to_image@1'] > 0.9, test
  val = [row for row in rows if row['split'] == 'val']
  assert val[-1]['loss'] < val[0]['loss'] and 'loss@1024' not in val[0] and set(record['parts']) == {'image', 'text'}
  assert next(row for row in rows if row['split'] == 'train')['scale'] == pytest.approx(10, rel=0.05)


@pytest.mark.slow
def test_a_page_about_the_classes_by_their_names(workdir, tmp_path):
  found = evaluation.evaluate(str(workdir))
  row = records.read_rows(workdir / records.METRICS)[-1]
  assert found.summary['accuracy'] == pytest.approx(row['zero_shot@1'], abs=1e-6) and found.summary['examples'] > 100
  assert [each['class'] for each in found.summary['classes']] == list(NAMES)
  assert 0 < found.summary['loss'] < 2  # of shares of 1, also of a sigmoid loss
  html = run_page.render(found)
  asked = page_data(html)['texts']['retrieval']
  assert [row[0] for row in asked['shares']] == ['text for a picture', 'picture for a text', 'class by its name']
  assert asked['shares'][0][1] == row['image_to_text@1'] and len(asked['pictures']) == len(asked['texts']) == 8
  assert sum(e['found'][0][2] for e in asked['pictures']) > 5  # it has learnt them
  assert 'zero_shot@1' in html and f'{found.summary["accuracy"]:.2%} of' in html
  plain = _run(**{'data.source': vit_jax.arrays(np.zeros((40, 8, 8, 3), np.uint8), captions=['a'] * 40)})
  _train(plain, tmp_path / 'plain')
  with pytest.raises(UserError, match='have no classes to be told; use predict --names'):
    evaluation.evaluate(str(tmp_path / 'plain'))
  assert words_page.is_for(tmp_path / 'plain') and not words_page.is_for(workdir)
  alone = page_data(words_page.write(tmp_path / 'plain', 'test').read_text())
  assert alone['headline'].startswith('the nearest text is right for')
  assert len(alone['texts']['retrieval']['texts']) == 1


@pytest.mark.slow
def test_names_and_search(workdir, album, tmp_path):
  done = command_line.run('predict', workdir, album, f'--names={",".join(NAMES)}', '--template=a {} square',
                          '--format=json', '--top=1')
  assert done.returncode == 0, done.stderr
  rows = map(json.loads, done.stdout.splitlines())
  found = {pathlib.Path(row['path']).stem: row['classes'][0]['class'] for row in rows}
  assert len(found) == len(NAMES) and np.mean([name == best for name, best in found.items()]) > 0.8
  done = command_line.run('search', workdir, album, '--text=a blue all square', '--text=a red left square', '--top=3',
                          '--format=json')
  assert done.returncode == 0 and 'broken.png: cannot be read' in done.stderr, done.stderr
  blue, red = (row['pictures'] for row in map(json.loads, done.stdout.splitlines()))
  assert blue[0]['path'] == 'below/blue all.png' and red[0]['path'] == 'red left.png' and len(red) == 3
  assert len(list((workdir / 'search').glob('*.npz'))) == 1


@pytest.mark.slow
def test_an_index_follows_its_folder(workdir, album, tmp_path):
  """Only what is new is computed; other weights make it anew; ten thousand pictures are answered at once."""
  pairs, file, notes = pair_model.load(workdir), tmp_path / 'index.npz', []
  open_index = lambda: picture_index.open_index(pairs, album, file, notes.append)
  first = open_index()
  count, before = len(first.paths), file.stat().st_mtime_ns
  assert count == len(NAMES) + 1 and np.isnan(first.embeddings).any(1).sum() == 1
  again = open_index()
  assert file.stat().st_mtime_ns == before and len(notes) == 2
  np.testing.assert_array_equal(again.embeddings, first.embeddings)
  new = album / 'new.png'
  new.write_bytes((album / 'red all.png').read_bytes())
  notes.clear()
  grown = open_index()
  assert notes == ['indexed 1 of 1 pictures'] and len(grown.paths) == count + 1
  new.unlink()
  assert open_index().paths == first.paths
  file.write_bytes(file.read_bytes()[:100])
  np.testing.assert_allclose(open_index().embeddings, first.embeddings, atol=1e-6)
  many = picture_index.PictureIndex(tuple(map(str, range(10_000))), np.zeros((10_000, 2), np.int64),
                                    np.random.default_rng(0).standard_normal((10_000, 32)).astype(np.float32), '')
  start = time.process_time()
  (best,) = many.find(many.embeddings[[77]], 5)
  assert best[0][0] == '77' and time.process_time() - start < 1


class _Alike:
  """Towers for which all is alike."""
  texts = images = lambda self, rows: np.ones((len(rows), 4), np.float32)


@pytest.mark.parametrize('index, content, message', [
    ('.', b'', 'expected a file, got a folder'), ('a.png/index.npz', b'', 'the index cannot be written .*--index=FILE'),
    ('index.npz', b'no picture', 'none of the 1 pictures could be read')])
def test_an_index_that_cannot_be_made_is_refused_in_words(tmp_path, index, content, message):
  Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
  if content:
    (tmp_path / 'a.png').write_bytes(content)
  pairs = pair_model.PairModel(_Alike(), Preprocessing((8, 8), 3), 'd', 'sigmoid', 1.0, 0.0, ('{}',))
  with pytest.raises(UserError, match=message):
    picture_index.open_index(pairs, tmp_path, tmp_path / index, lambda text: None)


@pytest.mark.slow
@pytest.mark.parametrize('flags, message', [
    (['--names=cat'], 'expected two different names'), (['--template=a {}'], 'is about the names of --names'),
    (['--names=a,b', '--template=x'], 'expected a text with {} in the place of the name')])
def test_bad_names(workdir, album, flags, message):
  done = command_line.run('predict', workdir, album, *flags)
  assert done.returncode == 1 and message in done.stderr and 'Traceback' not in done.stderr, done.stderr


def test_scores_do_not_depend_on_the_order_of_others_and_ties_are_no_success():
  rng, count = np.random.default_rng(0), 300
  x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in rng.standard_normal((2, count, 8)).astype(np.float32))
  captions = np.stack([np.arange(count), np.zeros(count)], 1).astype(np.uint32)
  kept = {'image': x, 'text': y, 'caption': captions, 'weight': np.ones(count, np.float32),
          'scale': np.full(count, 10, np.float32), 'bias': np.full(count, -10, np.float32)}
  found = pair_scores.scores('sigmoid', kept)
  assert found['loss'] == found['loss@256'] and 'loss@1024' not in found
  expected = 10.0 * x @ y.T - 10  # of all: 300 candidates where there are 256
  whole = np.logaddexp(0, np.where(np.eye(count, dtype=bool), -expected, expected)).sum(1).mean()
  assert found['loss'] == pytest.approx(whole, rel=0.1)
  right = (expected > np.diag(expected)[:, None]).sum(1)
  assert found['image_to_text@5'] == pytest.approx((right < 5).mean())
  alike = pair_scores.scores('sigmoid', kept | {'image': np.ones_like(x), 'text': np.ones_like(y)})
  assert alike['image_to_text@10'] == alike['text_to_image@10'] == 0
  assert pair_scores.scores('sigmoid', kept | {'text': x})['text_to_image@1'] == 1
  assert pair_scores.scores('sigmoid', kept | {'image': np.full_like(x, np.nan)})['text_to_image@10'] == 0


def test_zero_shot_shares_and_their_error():
  classes = np.eye(8, dtype=np.float32)
  images = np.array([[3, 2, 1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1]], np.float32)
  one = lambda label: pair_scores.zero_shot(images[:1], np.array([label]), classes)
  assert one(0) == {'zero_shot@1': 1, 'zero_shot@5': 1, 'zero_shot_error': 0}
  assert one(2) == {'zero_shot@1': 0, 'zero_shot@5': 1, 'zero_shot_error': 1}
  both = pair_scores.zero_shot(images, np.array([0, 0]), classes)  # the second fits all names alike
  assert both == {'zero_shot@1': 0.5, 'zero_shot@5': 0.5, 'zero_shot_error': 0.5}


@pytest.mark.slow
def test_a_frozen_tower_and_rates_by_tower(workdir, tmp_path):
  """LiT: the image tower of a run, which does not move."""
  run = _run(**{'pretrained.path': str(workdir), 'pretrained.ignore': ('text/*',), 'train.steps': 3,
                'loss.text.depth': 1, 'loss.width': 16,
                'optimizer.train_only': ('text/*', 'log_scale', 'bias', 'projection/*')})
  assert {name.partition('/')[0] for name in run.pretrained.new} == {'text', 'log_scale', 'bias', 'projection'}
  _train(run, tmp_path)
  before, after = (pair_model.load(place).embedder.params for place in (workdir, tmp_path))
  jax.tree.map(np.testing.assert_array_equal, before['encoder'], after['encoder'])
  rates = run_config.cast(_recipe(**{'optimizer.rates': (('text/*', 0.1), ('*/bias', 2.0)),
                                     'optimizer.decays': (('text/encoder/*', 0.0),)})).optimizer
  flat = layerwise.rates(rates, run.model)
  assert flat['log_scale'] == 1 and flat['text']['tokens'] == np.float32(0.1)
  assert flat['text']['norm']['bias'] == np.float32(0.2) and flat['norm']['bias'] == 2
  assert trainable.scaled(rates, 'decays', run.model)['text']['projection']['kernel'] == 1


@pytest.mark.parametrize('family', ['resnet', 'deit', *(pytest.param(name, marks=pytest.mark.slow) for name in (
    'swin', 'convnext', 'mixer'))])
def test_any_family_is_an_image_tower(family):
  objective = contrast.Contrast(contrast.Config(width=16, text=text.Config(width=8, depth=1, mlp_dim=8, num_heads=1)))
  model = PureModel(family, models.family(family).config(), (224, 224, 3), 0, objective=objective)
  shapes = model.param_shapes()
  assert 'head' not in shapes and shapes['projection']['kernel'].shape[1] == 16


@pytest.mark.parametrize('changes, message', [
    ({'parametrisation.name': 'mup', 'parametrisation.base_width': 8}, 'has rules for one tower'),
    ({'optimizer.layer_decay': 0.5}, 'counts the layers of one tower'),
    ({'optimizer.rates': (('tekst/*', 0.1),)}, r"optimizer.rates='tekst/\*': matches no parameter"),
    ({'loss.text.num_heads': 3}, 'loss.text.num_heads=3 does not divide loss.text.width=32'),
    ({'loss.text.vocab_size': 100}, 'loss.text.vocab_size=100: the tokenizer has 259 tokens'),
    ({'loss.templates': ('a cat',)}, 'expected texts with {} in the place of a name'),
    ({'data.augment.mixup': 0.2}, 'mixes the targets of two pictures'),
    ({'data.source': 'digits'}, 'has no captions, and the objective reads text'),
    ({'evaluate.metric': 'accuracy'}, "evaluate.metric='accuracy': objective=contrast has no such metric")])
def test_bad_input(changes, message):
  with pytest.raises(UserError, match=message):
    _run(**changes)


@pytest.mark.slow
def test_another_objective_is_not_searched(tmp_path):
  c = config.defaults('vit')
  c.model.update(dict(patch_size=4, width=8, depth=1, mlp_dim=8, num_heads=1))
  c.train.steps = 1
  _train(run_lib.prepare(run_config.cast(c)), tmp_path)
  with pytest.raises(UserError, match='was trained with objective=classify; expected a run of objective=contrast'):
    pair_model.load(tmp_path)
  assert os.path.exists(tmp_path / records.RUN)
