"""Captions and answers of a run: the command and the class in Python write what the model says."""

import json
import shutil

import command_line
import numpy as np
import pytest
from pages import page_data
from PIL import Image

import vit_jax
from vit_jax import config
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.inspection import captioner, evaluation, text_samples, words_page
from vit_jax.training import config as run_config
from vit_jax.training import loop, state, trained
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

COLOURS = ('black', 'white')


@pytest.fixture(name='images', scope='module')
def _images():
  rng = np.random.default_rng(0)
  return (rng.integers(0, 40, (96, 8, 8, 3)) + 200 * (np.arange(96) % 2)[:, None, None, None]).astype(np.uint8)


def _recipe(images, **changes):
  c = config.defaults('vit', 'caption')
  c.model.update(dict(patch_size=4, width=32, depth=2, mlp_dim=64, num_heads=2, pool='gap'))
  c.data.source = vit_jax.arrays(images, captions=[(f'which?\t{COLOURS[i % 2]}', COLOURS[i % 2]) for i in range(96)])
  c.data.text.length, c.data.batch_size, c.train.steps, c.schedule.warmup_steps = 20, 32, 100, 10
  c.optimizer.learning_rate = 1e-2
  c.update_from_flattened_dict(changes)
  return c


@pytest.fixture(name='workdir', scope='module')
def _workdir(images, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('run') / 'colours'
  loop.train(run_lib.prepare(run_config.cast(_recipe(images))), workdir, Display())
  return workdir


@pytest.fixture(name='model', scope='module')
def _model(workdir):
  return captioner.load(workdir)


@pytest.mark.slow
def test_it_writes_answers_and_names_what_it_was_taught(model, images):
  for question in (None, 'which?', '  which? '):
    for beams in (1, 2):
      found = model.write(images[:4], question, beams)
      assert [texts[0][0] for texts in found] == ['black', 'white'] * 2 and {len(texts) for texts in found} == {beams}
    named = captioner.by_name(model, ['white', 'black', 'mauve'], question=question)
    assert named(list(images[:4]), batch_size=4).argmax(1).tolist() == [1, 0, 1, 0]
  templates = captioner.by_name(model, ['hit', 'lack'], ['w{}e', 'b{}'])
  assert templates.probabilities(list(images[:2]), 2).sum(1) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_its_page_has_texts_with_their_scores(workdir, model):
  shown = page_data(words_page.render(workdir, 'test'))
  written = shown['texts']['captions']
  assert {(e['question'], e['text'] == e['truth']) for e in written} == {('which?', True)} and len(written) == 12
  assert all(e['log_p'] == pytest.approx(e['truth_log_p'], rel=1e-4) and e['log_p'] < 0 for e in written)
  assert shown['headline'].endswith('would be written to the letter')
  with pytest.raises(UserError, match="no scores of split 'other'"):
    words_page.render(workdir, 'other')


def test_texts_that_are_cut_off_are_on_the_page_as_they_are_read(images):
  """In training the ends of questions and answers that are too long are cut off, and so they are here."""
  texts = 'what on earth may this be?\tblack', 'a long story about a colour', 'which?\t'
  captions = [texts[i % 3] for i in range(96)]
  run = run_lib.prepare(run_config.cast(_recipe(images, **{'data.source': vit_jax.arrays(images, captions=captions)})))
  model = captioner.Captioner(run.model, state.create(run.model, run.config, run.mesh).params, run.data.tokenizer,
                              Preprocessing((8, 8), 3))
  found = text_samples.captions(model, run.data, 'test')
  assert {e['question'] for e in found} == {None, 'what on earth may this be?', 'which?'}
  losses = [-e['truth_log_p'] / min(len(e['truth']) + 1, 19) for e in found if e['question'] is None]
  assert len(losses) > 1 and losses == pytest.approx([np.log(259)] * len(losses), rel=0.2)  # 18 tokens and the end


@pytest.mark.slow
def test_log_likelihood_is_divided_by_bytes(model, images):
  (text, log_p), = model.write(images[:1])[0]
  known = model.log_likelihoods(images[:1], [text, 'schwärzlich', 'schwa\u0308rzlich'])[0]
  np.testing.assert_allclose(known[:2], [log_p / 5, known[2]], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('question, message', [
    (' ', "--ask='': expected a question"),
    ('what on earth may this be?', 'too long for the texts of this model, which have 20 tokens'),
])
def test_what_cannot_be_asked(model, images, question, message):
  with pytest.raises(UserError, match=message):
    model.write(images[:1], question)
  with pytest.raises(UserError, match=message):
    model.log_likelihoods(images[:1], ['x'], question)


@pytest.mark.slow
@pytest.mark.parametrize('names', [['a'], ['a', 'a'], ['a', ''], ['a', 'x' * 19]])
def test_names_that_cannot_be_told_apart(model, images, names):
  with pytest.raises(UserError, match='expected (two different names|a text of at most 20 tokens)'):
    captioner.by_name(model, names)(list(images[:1]), 1)


@pytest.mark.slow
def test_the_command(workdir, images, tmp_path):
  for i in range(2):
    Image.fromarray(images[i]).save(tmp_path / f'{i}.png')
  predict = lambda *flags: command_line.run('predict', workdir, tmp_path, *flags)
  written = predict('--caption', '--beams=3', '--top=2', '--format=json').stdout
  rows = [json.loads(line) for line in written.splitlines()]
  assert [row['texts'][0]['text'] for row in rows] == ['black', 'white'] and len(rows[0]['texts']) == 2
  assert predict('--ask=which?', '--format=csv').stdout.splitlines()[1].split(',')[1:3] == ['1', 'black']
  named = predict('--names=black,white', '--ask=which?', '--format=csv', '--top=1').stdout.splitlines()
  assert [line.split(',')[2] for line in named[1:]] == ['black', 'white']
  assert 'one at a time' in predict('--caption', '--ask=which?').stderr
  assert 'is about the names of --names' in predict('--caption', '--template={}').stderr
  assert 'is about classes, and --caption prints none' in predict('--caption', '--threshold=0.3').stderr


@pytest.mark.slow
def test_what_it_is_not_for_is_said_with_what_it_is_for(workdir, tmp_path):
  done = command_line.run('convert', workdir, tmp_path / 'model.stablehlo', '--to=stablehlo')
  assert f'{workdir}: has no classifier, which --to=stablehlo writes; fine-tune it first' in done.stderr, done.stderr
  with pytest.raises(UserError, match=r'a run of objective=caption, which is for .*predict .* --caption; to classify'):
    trained.load(workdir)
  with pytest.raises(UserError, match='its scores are in metrics.jsonl, and on the page of --report='):
    evaluation.evaluate(str(workdir))


@pytest.mark.slow
def test_a_page_is_of_the_data_that_it_was_trained_with(workdir, tmp_path):
  other = tmp_path / 'run'
  shutil.copytree(workdir, other)
  record = json.loads((other / 'run.json').read_text())
  record['data']['fingerprint']['test'] = '0' * 16
  (other / 'run.json').write_text(json.dumps(record))
  with pytest.raises(UserError, match='the test data of arrays.* are not those that .* trained with.*bring them back'):
    words_page.render(other, 'test')


def test_a_blind_model_knows_no_picture(images):
  run = run_lib.prepare(run_config.cast(_recipe(images, **{'loss.blind': True})))
  plain = lambda images, targets, weights: (images, targets)
  batch = {'image': images[:2].astype(np.float32), 'weight': np.ones(2, np.float32)}
  assert not np.any(run.objective.prepare(run.model, batch, plain, None)['image'])


@pytest.mark.parametrize('changes, message', [
    ({'model.pos_embed': 'rope2d'}, 'model.pos_embed=rope2d: has no places for text'),
    ({'model.pos_embed': 'relative'}, 'set learned or sincos2d'),
    ({'model.attention': 'local'}, 'model.attention=local: cannot be masked'),
    ({'model.pool': 'map'}, 'set cls or gap'),
    ({'system.execution.attention_kernel': 'splash'}, 'attention_kernel=splash: cannot mask attention'),
    ({'system.execution.blocks': 'shard_map'}, 'set it to jit'),
    ({'loss.tied': True, 'parametrisation.name': 'mup'}, 'loss.tied=True'),
    ({'data.augment.mixup': 0.2}, 'mixes the targets'),
])
def test_what_it_cannot_have_is_refused_by_name(images, changes, message):
  with pytest.raises(UserError, match=message):
    run_config.check(run_config.cast(_recipe(images, **changes)))
