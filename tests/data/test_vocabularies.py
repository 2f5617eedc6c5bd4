"""Tokenizers with a vocabulary: learnt from captions, CLIP's, and those in files."""

import gzip
import importlib.util
import io
import sys

import numpy as np
import pytest

import vit_jax
from vit_jax.data import pipeline, text, vocabularies
from vit_jax.data.config import DataConfig
from vit_jax.data.text import TextConfig
from vit_jax.errors import UserError

tokenizers = pytest.importorskip('tokenizers')
CAPTIONS = [f'a {size} {animal} on a {place}' for size in ('small', 'large') for animal in ('cat', 'dog', 'whale')
            for place in ('roof', 'beach', 'table')]
STRANGE = ['', 'ünïcödé 漢字 🐳', '<|end|> <|pad|>', '  two  spaces ', 'half \udc80 of a pair']


def _bpe(**changes):
  return text.tokenizer(TextConfig('bpe', **{'vocab_size': 300} | changes), lambda: CAPTIONS)


def test_learnt_pairs_round_trip_any_text_and_are_shorter_than_bytes():
  made = _bpe()
  rows = made.encode([*CAPTIONS, *STRANGE])
  assert made.decode(rows) == [*CAPTIONS, *STRANGE[:-1], 'half ? of a pair'] and rows.max() < made.vocab_size == 300
  assert (rows[:, 0] == made.begin).all() and ((rows == made.end).sum(1) == 1).all()  # marks in a text are text
  known = text.lengths(rows[:len(CAPTIONS)])
  assert known.max() < 15 < min(map(len, CAPTIONS))
  assert _bpe().learnt == made.learnt and _bpe().digest == made.digest != _bpe(vocab_size=290).digest
  assert _bpe(vocab_size=5_000).vocab_size == 5_000  # the model's size does not depend on the texts


def test_a_learnt_one_is_found_again_in_its_file(tmp_path):
  made = _bpe()
  (tmp_path / 'tokenizer.json').write_text(made.learnt)
  again = text.tokenizer(TextConfig(f'{tmp_path}/tokenizer.json'), None)
  np.testing.assert_array_equal(again.encode(CAPTIONS + STRANGE), made.encode(CAPTIONS + STRANGE))
  assert (again.begin, again.end, again.learnt) == (made.begin, made.end, made.learnt)  # a run keeps a copy


def test_it_is_learnt_from_training_captions_alone_whatever_the_subset():
  x = np.random.default_rng(0).integers(0, 256, (90, 4, 4), np.uint8)
  source = vit_jax.arrays(x, captions=[f'word{"abcdefghij"[i % 10] * 3} {i}' for i in range(90)])
  read = lambda **changes: pipeline.open_data(DataConfig(source=source, text=TextConfig('bpe', vocab_size=300),
                                                         **changes)).reading(['text'])
  whole, small, other = read(), read(unique_examples=20), read(val_examples=30)
  assert whole.tokenizer.digest == small.tokenizer.digest != other.tokenizer.digest
  expected = vocabularies.learn([text for texts in whole.captions('train') for text in texts], 300)
  assert whole.tokenizer.learnt == expected
  assert whole.fingerprint('test') != small.reading(['image']).fingerprint('test')


def test_clips_vocabulary_from_its_file(tmp_path):
  """Of CLIP's form, with four merges that occur: tokens are numbered after 256 bytes, and 256 bytes that end a word."""
  others = [c for c in vocabularies._clip_alphabet() if not 'a' <= c <= 'z']
  merges = ['c a', 'ca t</w>', 'd o', 'do g</w>', *(f'{x} {y}' for x in others for y in others)]
  path = tmp_path / 'bpe_simple_vocab_16e6.txt.gz'
  path.write_bytes(gzip.compress('\n'.join(['"bpe_simple_vocab"', *merges]).encode()))
  made = text.tokenizer(TextConfig(str(path), length=10), None)
  cat, dog, exclamation, ampersand, s = 513, 515, 256 + 0, 256 + 5, 256 + ord('s') - 33
  for words, expected in {'Cat': [cat], ' DOG\n cat! ': [dog, cat, exclamation],
                          'cat&amp;amp;dog': [cat, ampersand, dog], "cat's": [cat, ord("'") - 33, s]}.items():
    assert made.encode([words])[0].tolist() == [49406, *expected, 49407] + [0] * (8 - len(expected)), words
  assert made.vocab_size == 49_408 and made.decode(made.encode(['Dog &lt; cat'])) == ['dog < cat']
  assert made.decode(made.encode(['dog dog dog dog dog dog dog dog dog'])) == [' '.join(['dog'] * 8)]


@pytest.mark.skipif(importlib.util.find_spec('open_clip') is None, reason='open_clip_torch is not installed')
@pytest.mark.parametrize('words, expected', [
    ('a photo of a cat', [320, 1125, 539, 320, 2368]),
    ("Émile's 3 dogs!!!", [3459, 6243, 568, 274, 3255, 995]),
    ('x &amp; y', [343, 261, 344]),
    ('漢字 🐳', [162, 120, 95, 35751, 501, 2074, 367]),
    ('a ! b', [320, 256, 321])])
def test_clip_is_that_of_openclip(words, expected):
  """What OpenCLIP's SimpleTokenizer gives (3.3.0)."""
  row = text.tokenizer(TextConfig('clip', length=16), None).encode([words])[0].tolist()
  assert row == [49406, *expected, 49407] + [0] * (14 - len(expected))


def test_sentencepiece(tmp_path):
  package = pytest.importorskip('sentencepiece')
  out = io.BytesIO()
  package.SentencePieceTrainer.train(sentence_iterator=iter(CAPTIONS), model_writer=out, vocab_size=40, pad_id=0,
                                     eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, hard_vocab_limit=False)
  (tmp_path / 'c.model').write_bytes(out.getvalue())
  made = text.tokenizer(TextConfig(f'{tmp_path}/c.model', length=8), None)
  rows = made.encode(['a cat', CAPTIONS[-1]])
  assert (made.begin, made.end) == (None, 1) and rows.max() < made.vocab_size
  assert rows[1, -1] == 1 and made.decode(rows[:1]) == ['a cat']  # cut, with its end
  model = package.SentencePieceProcessor(model_proto=out.getvalue())
  assert rows[0].tolist()[:model.encode('a cat').__len__() + 1] == [*model.encode('a cat'), 1]


@pytest.mark.parametrize('name, content, message', [
    ('words', None, "tokenizer='words': expected bytes, bpe, clip, or the path"),
    ('absent.json', None, 'absent.json: No such file'),
    ('a.json', b'{}', 'no tokenizer.json'),
    ('a.model', b'no model', 'no model of SentencePiece'),
    ('bpe_simple_vocab_16e6.txt.gz', b'plain', 'not the file bpe_simple_vocab_16e6.txt.gz'),
    ('bpe_simple_vocab_16e6.txt.gz', gzip.compress(b'#version\na b\n'), 'not the file bpe_simple_vocab_16e6.txt.gz')])
def test_what_is_no_tokenizer_is_refused(tmp_path, name, content, message):
  if name.endswith('.model'):
    pytest.importorskip('sentencepiece')
  if content is not None:
    (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=message):
    text.tokenizer(TextConfig(f'{tmp_path}/{name}' if '.' in name else name), None)


def test_a_file_whose_end_token_is_not_known_is_refused(tmp_path):
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel({'a': 0, 'b': 1}, unk_token='b'))
  (tmp_path / 'tokenizer.json').write_text(made.to_str())
  with pytest.raises(UserError, match='puts the tokens .. before a text and .. after it; expected'):
    text.tokenizer(TextConfig(f'{tmp_path}/tokenizer.json'), None)


def test_without_the_package_it_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'tokenizers', None)
  with pytest.raises(UserError, match='needs the package tokenizers: `uv run --extra text'):
    _bpe()
