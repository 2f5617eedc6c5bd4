"""Runs of two towers that start from both towers of given weights: the same logits before the first step, or words."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contrast_parity import folder_of, golden

import vit_jax
from vit_jax import config, recipe, records
from vit_jax.errors import UserError
from vit_jax.inspection import pair_model
from vit_jax.training import config as run_config
from vit_jax.training import loop, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

KINDS = ('siglip', 'clip')
WORDS = ('a cat', 'A Dog, running!', 'two  red hearts', "it's the fox")


def _recipe(path, **changes):
  """A run of pictures of 8 x 8 with captions, from weights."""
  c = config.defaults('vit', 'contrast')
  pictures = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
  c.data.source = vit_jax.arrays(pictures, captions=[WORDS[i % 4] for i in range(64)])
  c.pretrained.path = str(path)
  c.data.batch_size, c.train.steps = 8, 1
  c.update_from_flattened_dict(changes)
  return run_config.cast(c)


def _start(run):
  """The parameters before the first step."""
  return run.pretrained.fill(state.create(run.model, run.config, run.mesh)).params


@pytest.fixture(name='folders', scope='module')
def _folders(tmp_path_factory):
  root = tmp_path_factory.mktemp('towers')
  return {kind: folder_of(root / kind, golden(kind)) for kind in KINDS}


@pytest.mark.parametrize('kind', KINDS)
def test_the_logits_before_the_first_step_are_those_of_the_weights(kind, folders):
  """Also the tokens: cleaned and padded as those that the text tower was trained on."""
  run, arrays = run_lib.prepare(_recipe(folders[kind])), golden(kind)
  assert run.pretrained.new == run.pretrained.otherwise == ()
  tokens, theirs = run.data.tokenizer.encode(json.loads(str(arrays['texts']))), arrays['tokens']
  if kind == 'siglip':
    np.testing.assert_array_equal(tokens, theirs)
  batch = {'image': jnp.asarray(arrays['pixels'].transpose(0, 2, 3, 1)), 'text': jnp.asarray(tokens),
           'weight': jnp.ones(len(tokens))}
  forward = lambda params: run.model.call(params, {}, lambda module: run.objective.forward(module, batch))[0]
  outputs = jax.jit(forward)(_start(run))
  logits = outputs['scale'][0] * outputs['image'] @ outputs['text'].T + outputs['bias'][0]
  np.testing.assert_allclose(logits, arrays['logits'], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_a_run_goes_on_from_a_run_that_came_from_elsewhere(kind, folders, tmp_path):
  """With its tokens, also where the folder of the first weights is gone; the path of the tokenizer is no identity."""
  shutil.copytree(folders[kind], tmp_path / 'weights')
  first = run_lib.prepare(_recipe(tmp_path / 'weights'))
  assert first.config_hash == run_lib.prepare(_recipe(folders[kind])).config_hash
  loop.train(first, tmp_path / 'first', Display())
  if kind == 'clip':  # a copy of a tokenizer.json is kept with the run
    shutil.rmtree(tmp_path / 'weights')
  own = pair_model.load(tmp_path / 'first')
  second = run_lib.prepare(_recipe(tmp_path / 'first'))
  assert second.pretrained.new == () and second.config.loss.name == own.loss
  np.testing.assert_array_equal(second.data.tokenizer.encode(WORDS), own.embedder.tokenizer.encode(WORDS))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(_start(second)), jax.device_get(own.embedder.params))
  assert (tmp_path / 'first' / records.TOKENIZER).exists() == (kind == 'clip')


@pytest.mark.slow
def test_a_learnt_vocabulary_goes_with_its_table(tmp_path):
  c = _recipe(tmp_path, **{'pretrained.path': None, 'data.text.tokenizer': 'bpe', 'data.text.vocab_size': 300,
                           'data.text.length': 12, 'model.patch_size': 4, 'model.width': 8, 'model.depth': 1,
                           'model.mlp_dim': 8, 'model.num_heads': 1, 'loss.text.width': 8, 'loss.text.depth': 1,
                           'loss.text.mlp_dim': 8, 'loss.text.num_heads': 1})
  loop.train(run_lib.prepare(c), tmp_path / 'run', Display())
  other = vit_jax.arrays(np.zeros((64, 8, 8, 3), np.uint8), captions=['quite other words'] * 64)
  run = run_lib.prepare(_recipe(tmp_path / 'run', **{'data.source': other, 'data.text.tokenizer': 'bpe'}))
  own = pair_model.load(tmp_path / 'run').embedder.tokenizer
  np.testing.assert_array_equal(run.data.tokenizer.encode(WORDS), own.encode(WORDS))
  assert run.pretrained.new == () and run.config.loss.text.vocab_size == 300
  with pytest.raises(UserError, match=r'text/positions: expected \(9, 8\), got \(12, 8\)(.|\n)*data.text.length=9'):
    run_lib.prepare(_recipe(tmp_path / 'run', **{'data.text.length': 9}))


def test_texts_are_cleaned_as_the_config_says(folders):
  """Else as those that the text tower was trained on."""
  tokens = lambda **changes: run_lib.prepare(_recipe(folders['siglip'], **changes)).data.tokenizer.encode(WORDS)
  theirs, same, other = tokens(), tokens(**{'data.text.clean': 'canonical'}), tokens(**{'data.text.clean': 'none'})
  np.testing.assert_array_equal(theirs, same)
  assert (theirs != other).any()


def test_what_is_ignored_is_new(folders):
  """LiT: the text tower with the projections, scale and bias; or the table of tokens alone, of other tokens."""
  run = run_lib.prepare(_recipe(folders['clip'], **{'pretrained.ignore': ('text/*',), 'loss.text.width': 8,
                                                    'loss.text.num_heads': 1, 'loss.text.depth': 1}))
  assert {name.partition('/')[0] for name in run.pretrained.new} == {'text', 'log_scale', 'bias'}
  assert run.config.data.text.tokenizer == 'bytes' and run.config.loss.name == 'sigmoid'
  run = run_lib.prepare(_recipe(folders['clip'], **{'pretrained.ignore': ('text/tokens', 'text/positions'),
                                                    'loss.text.vocab_size': 259}))
  assert run.pretrained.new == ('text/positions', 'text/tokens') and run.data.tokenizer.vocab_size == 259
  lit = recipe.load_recipe('configs/lit_b16.py')
  assert lit.pretrained.ignore == ('text/*',)  # from two towers too


@pytest.mark.parametrize('changes, message', [
    ({'loss.text.depth': 1}, r'text/encoder(.|\n)*The config sets loss.text.depth=1, the weights have 2'),
    ({'loss.width': 8}, r'projection(.|\n)*loss.width=8, the weights have 12'),
    ({'loss.name': 'sigmoid'}, r'bias: not in the weights(.|\n)*loss.name=.sigmoid., the weights have .softmax.'),
    ({'data.text.tokenizer': 'clip'}, 'data.text.tokenizer=clip: (.|\n)*a table of the tokens of'),
    ({'pretrained.without': ('head',)}, r'pretrained.without=.*: is for .* these weights have text/\*'),
    ({'pretrained.digest': '0' * 16}, 'expected weights with pretrained.digest=0000')])
def test_what_does_not_fit_is_named(changes, message, folders):
  if changes.get('data.text.tokenizer') == 'clip':
    pytest.importorskip('open_clip')
  with pytest.raises(UserError, match=message):
    run_lib.prepare(_recipe(folders['clip'], **changes))


def test_a_padding_that_is_read_is_for_pools_that_do_not_ask_for_lengths(folders):
  with pytest.raises(UserError, match='data.text.pad=1: loss.text.pool=gap reads how long a text is'):
    run_lib.prepare(_recipe(folders['siglip'], **{'loss.text.pool': 'gap'}))
