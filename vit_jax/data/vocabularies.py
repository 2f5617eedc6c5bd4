"""Tokenizers with a vocabulary: one that is learnt from the captions, CLIP's, and those in files of other programs.

They need the extra `text`: the package `tokenizers`, and `sentencepiece` for files of SentencePiece.
"""

import gzip
import hashlib
import html
import importlib
import importlib.util
import pathlib
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from vit_jax import buckets
from vit_jax.data import listing
from vit_jax.data import text as text_lib
from vit_jax.data.text import TextConfig, Tokenizer
from vit_jax.errors import UserError

_CLIP = 'bpe_simple_vocab_16e6.txt.gz'  # in the package open_clip_torch, MIT licence
_CLIP_MERGES = 49_152 - 256 - 2
# What CLIP splits text into before it looks for its tokens (Radford et al. 2021, simple_tokenizer.py).
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_MARKS = ('<|pad|>', '<|begin|>', '<|end|>')  # of a vocabulary that is learnt: 0, 1, 2
_ENDS = ('</s>', '<|endoftext|>', '<eos>', '<|end_of_text|>', '<|end|>', '[SEP]')  # where a file does not add one


def tokenizer(config: TextConfig, captions: Callable[[], Sequence[str]]) -> Tokenizer:
  """As `text.tokenizer`, for all but bytes."""
  name = config.tokenizer
  if name == 'bpe':
    return _of_json(config, learn(captions(), config.vocab_size).encode(), size=config.vocab_size)
  if name == 'clip':
    return _of_clip(config, _read(_clip_file()))
  reader = _reader(name)
  return reader(config, _read(name))


def of_content(config: TextConfig, content: bytes) -> Tokenizer:
  """The tokenizer in the content of a file; config.tokenizer is its name. Raises UserError as `text.tokenizer` does."""
  return text_lib.configured(config, _reader(config.tokenizer)(config, content))


def _reader(name):
  """What reads a file of this name."""
  readers = {'.json': _of_json, '.model': _of_sentencepiece, _CLIP: _of_clip}
  read = next((read for end, read in readers.items() if name.endswith(end)), None)
  if read is None:
    raise UserError(f'data.text.tokenizer={name!r}: expected bytes, bpe, clip, or the path of a tokenizer.json, a '
                    f'SentencePiece .model or {_CLIP}')
  return read


def learn(captions: Sequence[str], vocab_size: int) -> str:
  """The content of a tokenizer.json: byte pairs (Sennrich et al. 2016) of these texts, so that no text is unknown."""
  tokenizers = _package('tokenizers')
  from tokenizers import decoders, models, pre_tokenizers, processors, trainers
  made = tokenizers.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  made.train_from_iterator(captions, trainers.BpeTrainer(
      vocab_size=vocab_size, special_tokens=list(_MARKS), show_progress=False,
      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
  _, begin, end = _MARKS
  made.post_processor = processors.TemplateProcessing(
      single=f'{begin} $A {end}', special_tokens=[(mark, made.token_to_id(mark)) for mark in (begin, end)])
  return made.to_str()


def _of_json(config, content, size=None):
  """That of a tokenizer.json; `size` counts tokens that were asked for and not found too: few texts have few pairs."""
  tokenizers, where = _package('tokenizers'), f'data.text.tokenizer={config.tokenizer}'
  try:
    made = tokenizers.Tokenizer.from_str(content.decode())
  except Exception as error:  # of the package's own, without a common class
    raise UserError(f'{where}: no tokenizer.json: {error}') from error
  made.no_padding()
  made.no_truncation()
  begin, end = _added(made, where)
  return _made(config, content, made, size or max(made.get_vocab().values()) + 1, begin, end,
               lambda ids: made.decode(ids, skip_special_tokens=True), learnt=content.decode())


def _added(made, where):
  """The (begin or None, end) that it puts around a text; else an end by the names that they have."""
  plain, whole = (made.encode('a', add_special_tokens=added).ids for added in (False, True))
  before = next((i for i in range(len(whole)) if whole[i:i + len(plain)] == plain), 0)
  first, last = whole[:before], whole[before + len(plain):]
  end = last or [i for i in map(made.token_to_id, _ENDS) if i is not None][:1]
  if len(first) > 1 or not end or 0 in (end[0], *first):
    raise UserError(f'{where}: puts the tokens {first} before a text and {last} after it; expected at most one before, '
                    f'and one after, or one of {", ".join(_ENDS)} among its tokens, none with the number 0')
  return (first or [None])[0], end[0]


def _of_clip(config, content):
  """CLIP's tokens, without the repair of wrongly decoded text (ftfy) that OpenCLIP begins with."""
  tokenizers = _package('tokenizers')
  from tokenizers import decoders, models, pre_tokenizers
  try:
    lines = gzip.decompress(content).decode().split('\n')[1:_CLIP_MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    assert len(merges) == _CLIP_MERGES and all(len(pair) == 2 for pair in merges)
  except (OSError, EOFError, ValueError, AssertionError) as error:
    raise UserError(f'data.text.tokenizer={config.tokenizer}: not the file {_CLIP} of open_clip_torch') from error
  alphabet = _clip_alphabet()
  words = [*alphabet, *(f'{c}</w>' for c in alphabet), *map(''.join, merges), '<|startoftext|>', '<|endoftext|>']
  made = tokenizers.Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges,
                                         end_of_word_suffix='</w>'))
  made.pre_tokenizer = pre_tokenizers.Sequence([
      pre_tokenizers.Split(tokenizers.Regex(_CLIP_WORDS), 'removed', invert=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
  made.decoder = decoders.ByteLevel()
  clean = lambda text: ' '.join(html.unescape(html.unescape(unicodedata.normalize('NFC', text))).split()).lower()
  return _made(config, content, made, len(words), len(words) - 2, len(words) - 1,
               lambda ids: made.decode(ids).replace('</w>', ' ').strip(), clean)


def _clip_alphabet():
  """A character for each byte, in CLIP's order: those that can be printed stand for themselves, and come first."""
  printed = [*range(ord('!'), ord('~') + 1), *range(ord('¡'), ord('¬') + 1), *range(ord('®'), ord('ÿ') + 1)]
  return [chr(b) for b in printed] + [chr(256 + i) for i in range(256 - len(printed))]


def _of_sentencepiece(config, content):
  package, where = _package('sentencepiece'), f'data.text.tokenizer={config.tokenizer}'
  try:
    model = package.SentencePieceProcessor(model_proto=content)
  except RuntimeError as error:
    raise UserError(f'{where}: no model of SentencePiece: {error}') from error
  if model.eos_id() < 1:
    raise UserError(f'{where}: has no end token </s>, or it has the number 0')
  return Tokenizer(config.length, model.get_piece_size(), None, model.eos_id(), _digest(config, content),
                   lambda texts: model.encode(list(map(_text, texts))), lambda ids: model.decode(list(ids)))


def _made(config, content, made, size, begin, end, text, clean=lambda text: text, learnt=None):
  """A Tokenizer of one of the package `tokenizers`."""
  made.encode_special_tokens = True  # '<|end|>' in a caption is text like any other

  def ids(texts):
    texts = [clean(_text(text)) for text in texts]
    return [encoded.ids for encoded in made.encode_batch(texts, add_special_tokens=False)]

  return Tokenizer(config.length, size, begin, end, _digest(config, content), ids, text, learnt)


def _text(text):
  """Without halves of surrogate pairs, which are no text."""
  return text.encode(errors='replace').decode()


def _digest(config, content):
  return hashlib.blake2b(repr(config.length).encode() + content, digest_size=8).hexdigest()


def _package(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise UserError(f'data.text.tokenizer needs the package {name}: `uv run --extra text ..` or `pip install {name}`; '
                    'tokenizer=bytes needs none') from error


def _clip_file():
  found = importlib.util.find_spec('open_clip')  # which is not imported: it would import torch
  if found is None:
    raise UserError(f'data.text.tokenizer=clip: needs the file {_CLIP} of the package open_clip_torch, which is not '
                    'installed; install it, or give the path of the file')
  return str(pathlib.Path(found.origin).parent / _CLIP)


def _read(path):
  try:
    return listing.read(str(pathlib.Path(path).expanduser()) if not buckets.is_bucket(path) else path)
  except OSError as error:
    raise UserError(f'data.text.tokenizer={path}: {error.strerror or error}') from error
