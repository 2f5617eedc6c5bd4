"""Captions in batches: as tokens, drawn by (seed, step, row), and only where an objective reads text."""

import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from vit_jax import config
from vit_jax.data import pipeline, text
from vit_jax.data.config import Augment, DataConfig
from vit_jax.data.text import TextConfig
from vit_jax.errors import UserError
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib

ENTRIES = ('image', 'text')
CAPTIONS = [(f'picture {i}', f'Bild {i}', f'obraz {i}') if i % 2 else (f'el dibujo número {i} 🐳',) for i in range(60)]


@pytest.fixture(scope='module', name='source')
def _source():
  return vit_jax.arrays(np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8), captions=CAPTIONS)


def _data(source, **changes):
  return pipeline.open_data(DataConfig(**{'source': source, 'batch_size': 8} | changes)).reading(ENTRIES)


def _read(batches):
  out = list(batches)
  batches.close()
  return out


def _assert_equal(a, b):
  assert len(a) == len(b) > 0
  for x, y in zip(a, b):
    assert set(x) == set(y) == {'image', 'label', 'text', 'weight'}
    for name in x:
      np.testing.assert_array_equal(x[name], y[name])


RECORDS = {'augment': Augment(crop='inception'), 'image_size': (6, 6)}  # read one by one, by threads
BOTH = pytest.mark.parametrize('changes', [{}, RECORDS], ids=['memory', 'records'])


@BOTH
def test_each_row_has_a_caption_of_its_picture(source, changes):
  data = _data(source, **changes)
  of_picture = {data.where('train', i): set(texts) for i, texts in enumerate(data.captions('train'))}
  order, found = data.train_order(3), set()
  for step, batch in enumerate(_read(data.train_batches(3, 0, 60))):
    assert batch['text'].dtype == np.int32 and batch['text'].shape == (8, 64)
    for position, words in zip(order(step), data.tokenizer.decode(batch['text'])):
      assert words in of_picture[data.where('train', position)]
      found.add(words)
  assert found == set().union(*of_picture.values())  # every caption of every picture is drawn at some time


@BOTH
def test_resumed_and_divided_batches_are_those_of_one_process(source, changes):
  data = _data(source, **changes)
  whole = _read(data.train_batches(5, 0, 9))
  _assert_equal(_read(_data(source, **changes).train_batches(5, 6, 3)), whole[6:])
  parts = [_read(data.train_batches(5, 0, 9, rows=rows)) for rows in (slice(0, 3), np.array([3, 5, 7]), [4, 6])]
  for i, batch in enumerate(whole):
    for part, rows in zip(parts, (slice(0, 3), [3, 5, 7], [4, 6])):
      np.testing.assert_array_equal(part[i]['text'], batch['text'][rows])
  assert any((a['text'] != b['text']).any() for a, b in zip(whole, _read(data.train_batches(6, 0, 9))))


@BOTH
def test_in_evaluation_it_is_the_first_caption_and_padding_has_none(source, changes):
  data = _data(source, **changes)
  for split in pipeline.SPLITS:
    batches = _read(data.eval_batches(split, 7))
    real = np.concatenate([batch['weight'] for batch in batches]) == 1
    rows = np.concatenate([batch['text'] for batch in batches])
    assert data.tokenizer.decode(rows[real]) == [texts[0] for texts in data.captions(split)]
    assert not rows[~real].any() and (split != 'val' or not real.all())


@BOTH
def test_without_text_nothing_changes(source, changes):
  data = pipeline.open_data(DataConfig(source=source, batch_size=8, **changes))
  with_text = data.reading(ENTRIES)
  for plain, more in zip(_read(data.train_batches(0, 0, 3)), _read(with_text.train_batches(0, 0, 3)), strict=True):
    assert list(plain) == ['image', 'label', 'weight'] and set(more) == {*plain, 'text'}
    for name in plain:
      np.testing.assert_array_equal(plain[name], more[name])
  assert data.fingerprint('train') != with_text.fingerprint('train') != with_text.fingerprint('test')


def test_arrays_have_text_where_none_is_drawn(source):
  data = _data(source)
  assert data.arrays('train') is None
  assert data.tokenizer.decode(data.arrays('test')['text']) == [texts[0] for texts in data.captions('test')]
  one = _data(vit_jax.arrays(np.zeros((60, 8, 8), np.uint8), captions=[texts[0] for texts in CAPTIONS]))
  assert one.tokenizer.decode(one.arrays('train')['text']) == [text for text, in one.captions('train')]


def test_the_fingerprint_covers_captions_and_the_tokenizer(source):
  x = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
  changed = vit_jax.arrays(x, captions=[*CAPTIONS[:-1], ('another', *CAPTIONS[-1][1:])])
  reordered = vit_jax.arrays(x, captions=[texts[::-1] for texts in CAPTIONS])
  whole = lambda data: tuple(data.fingerprint(split) for split in pipeline.SPLITS)
  every = [whole(_data(s)) for s in (source, changed, reordered)] + [whole(_data(source, text=TextConfig(length=32)))]
  assert len(set(every)) == 4 and every[0] == whole(_data(source))


def test_bytes_round_trip_and_long_texts_keep_their_end():
  tokenizer = text.tokenizer(TextConfig(length=12), None)
  rows = tokenizer.encode(['', 'a', 'naïve', 'a longer text', 'мир'])
  assert rows.dtype == np.int32 and rows.shape == (5, 12) and rows.max() < tokenizer.vocab_size == 259
  assert rows[1].tolist() == [1, ord('a') + 3, 2] + [0] * 9
  assert tokenizer.decode(rows) == ['', 'a', 'naïve', 'a longer t', 'мир']
  assert rows[3, -1] == tokenizer.end
  assert tokenizer.decode([[ord('a') + 3, ord('b') + 3, 0]]) == ['ab']  # as a model writes, before its end
  assert text.tokenizer(TextConfig(length=13), None).digest != tokenizer.digest


def test_accents_that_look_the_same_have_the_same_tokens():
  """Names of files, and classes that are folders, often have an accent apart from its letter."""
  tokenizer = text.tokenizer(TextConfig(length=20), list)
  apart, composed = 'gru\u0308n?\tcafe\u0301', 'grün?\tcafé'
  found = text.Tokens.of(tokenizer, [apart, composed])([0, 1])
  assert apart != composed and all((rows[0] == rows[1]).all() for rows in found.values()), found


def test_lengths_count_a_zero_inside_of_a_text():
  rows = np.array([[7, 0, 8, 2, 0], [0, 0, 0, 0, 0], [1, 2, 0, 0, 0], [5, 5, 5, 5, 5]])
  assert text.lengths(rows).tolist() == text.lengths(jnp.asarray(rows)).tolist() == [4, 0, 2, 5]


def test_draws_are_of_the_row_alone():
  whole = text.draws(2, 17, np.arange(1000))
  np.testing.assert_array_equal(text.draws(2, 17, np.array([3, 999])), whole[[3, 999]])
  assert len({tuple(text.draws(*key, np.arange(4))) for key in ((2, 17), (2, 18), (3, 17), (2**40 + 2, 17))}) == 4
  counts = np.bincount(whole % 5, minlength=5)
  assert counts.min() > 150  # of 200


@pytest.mark.parametrize('captions, message', [
    (['a'] * 3, '4 pictures and captions of 3'), (['a', 'b', ' ', 'd'], "' '.* of picture 2"),
    ([['a'], [], ['c'], ['d']], 'of picture 1'), (['a', 'b', 3, 'd'], '3,.* of picture 2')])
def test_captions_that_do_not_fit_are_refused(captions, message):
  with pytest.raises(UserError, match=message):
    vit_jax.arrays(np.zeros((4, 8, 8), np.uint8), captions=captions)


def test_arrays_need_labels_or_captions_everywhere(source):
  x, y = np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]
  with pytest.raises(UserError, match='neither labels nor captions in train'):
    vit_jax.arrays(x)
  with pytest.raises(UserError, match='in all of them or in none'):
    vit_jax.arrays(x, y, captions=['a'] * 4, test=(x, y))
  both = pipeline.open_data(DataConfig(source=vit_jax.arrays(x, y, captions='abcd', test=(x, y, 'efgh'))))
  assert both.class_names == ('0', '1') and both.captions('test') == [('e',), ('f',), ('g',), ('h',)]


def test_data_without_classes_or_without_captions_say_so(source):
  with pytest.raises(UserError, match='data.source=digits: has no captions'):
    pipeline.open_data(DataConfig()).reading(ENTRIES)
  c = config.defaults('vit')
  c.data.source, c.train.steps = source, 2
  with pytest.raises(UserError, match='has no classes, which objective=classify predicts'):
    run_lib.prepare(run_config.cast(c))


def test_splits_of_sources_without_classes_are_at_random_and_nested(source):
  data = _data(source)
  assert [data.size(split) for split in pipeline.SPLITS] == [43, 5, 12] and data.num_classes == 0
  small, less = (_data(source, unique_examples=n) for n in (20, 10))
  assert set(less.captions('train')) < set(small.captions('train')) < set(data.captions('train'))
  assert not set(data.captions('test')) & set(data.captions('train'))


def test_a_tab_parts_a_question_from_its_answer():
  tokenizer = text.tokenizer(TextConfig(length=12), list)
  texts = ['a cat', 'what?\tмир', 'which one is it?\tthe red one', 'which?\tthe red one', '\t', 'q\ta\tb']
  tokens = text.Tokens.of(tokenizer, texts)
  found = tokens(np.arange(len(texts)))
  assert tokens.cut == 3 and text.Tokens.of(tokenizer, ['eleven let', 'eleven lett', 'ten\tletter', 'a\tb']).cut == 1
  assert tokenizer.decode(found['text']) == ['a cat', 'what?\tми', 'which on\tt', 'which?\tthe', '\t', 'q\ta\tb']
  assert found['answer_start'].tolist() == [1, 7, 10, 8, 2, 3]
  assert found['answer_bytes'].tolist() == [5, 4, 1, 3, 0, 3]  # of what is left
  assert all(row[-1] == tokenizer.end for row in found['text'][2:4])


def test_entries_of_text_are_read_where_they_are_asked_for(source):
  data = pipeline.open_data(DataConfig(source=source, batch_size=8)).reading(('image', *text.ENTRIES))
  train, val = (next(batches) for batches in (data.train_batches(0, 0, 1), data.eval_batches('val', 8)))
  for batch in (train, val):
    words = data.tokenizer.decode(batch['text'])
    np.testing.assert_array_equal(batch['answer_bytes'], [len(word.encode()) for word in words])
    np.testing.assert_array_equal(batch['answer_start'], batch['weight'] > 0)
  assert set(data.arrays('test')) == {'image', 'label', *text.ENTRIES}
