"""Runs of objective=caption that start from such a run: the words go on too, with the tokens they were learnt of."""

import jax
import numpy as np
import pytest

import vit_jax
from vit_jax import config
from vit_jax.data import vocabularies
from vit_jax.errors import UserError
from vit_jax.inspection import captioner
from vit_jax.training import config as run_config
from vit_jax.training import loop, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display

WORDS = ('a cat', 'A Dog, running!', 'two  red hearts', "it's the fox")
SMALL = {'model.patch_size': 4, 'model.width': 8, 'model.depth': 1, 'model.mlp_dim': 8, 'model.num_heads': 1,
         'model.pool': 'gap', 'data.text.length': 12, 'data.text.tokenizer': 'bpe', 'data.text.vocab_size': 300}


def _recipe(words=WORDS, **changes):
  c = config.defaults('vit', 'caption')
  pictures = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
  c.data.source = vit_jax.arrays(pictures, captions=[words[i % 4] for i in range(64)])
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate = 8, 2, 0.01
  c.update_from_flattened_dict(changes)
  return run_config.cast(c)


@pytest.fixture(name='first', scope='module')
def _first(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('captions') / 'first'
  loop.train(run_lib.prepare(_recipe(**SMALL)), workdir, Display())
  return workdir


@pytest.mark.slow
def test_all_goes_on_with_the_tokens_it_was_learnt_of(first, tmp_path):
  """A vocabulary of 300 that was learnt of four captions has fewer tokens than the table has rows."""
  run = run_lib.prepare(_recipe(['quite other words'] * 4, **{'pretrained.path': str(first)}))
  own = captioner.load(first)
  assert run.pretrained.new == run.pretrained.otherwise == () and run.config.loss.vocab_size == 300
  np.testing.assert_array_equal(run.data.tokenizer.encode(WORDS), own.tokenizer.encode(WORDS))
  start = run.pretrained.fill(state.create(run.model, run.config, run.mesh)).params
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(start), jax.device_get(own.params))
  assert np.any(start['words']['head']['kernel'])
  loop.train(run, tmp_path / 'second', Display())
  third = run_lib.prepare(_recipe(**{'pretrained.path': str(tmp_path / 'second')}))
  assert third.pretrained.new == () and third.config.loss == run.config.loss


@pytest.mark.slow
def test_words_are_new_where_they_are_ignored_and_refused_where_they_do_not_fit(first, tmp_path):
  other, path = tmp_path / 'other.json', {'pretrained.path': str(first)}
  run = run_lib.prepare(_recipe(**path, **{'pretrained.ignore': ('words/*',), 'data.text.length': 7}))
  assert {name.partition('/')[0] for name in run.pretrained.new} == {'words'}
  assert run.config.data.text.tokenizer == 'bytes'
  run = run_lib.prepare(_recipe(**path, **{'pretrained.ignore': ('words/table', 'words/head/*'), 'loss.vocab_size': 259,
                                   'data.text.length': 12}))
  assert set(run.pretrained.new) == {'words/table', 'words/head/kernel', 'words/head/bias'}
  other.write_text(vocabularies.learn(['quite other words'], 270))
  for changes, message in (
      ({'data.text.length': 9}, r'words/places: expected \(9, 8\), got \(12, 8\)(.|\n)*data.text.length=9'),
      ({'loss.tied': True}, r'words/head/kernel .*: not in this model(.|\n)*loss.tied=True'),
      ({'loss.vocab_size': 270}, 'loss.vocab_size=270: the tokenizer has'),
      ({'data.text.tokenizer': str(other)}, r"of the tokens of .*pretrained.ignore=\('words/table',\)"),
      ({'pretrained.without': ('head',)}, r'these weights have words/\* too')):
    with pytest.raises(UserError, match=message):
      run_lib.prepare(_recipe(**path, **changes))
