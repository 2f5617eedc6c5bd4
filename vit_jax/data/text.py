"""Text for a model: captions become rows of token numbers, of one length, padded with 0.

A row is the begin token where the tokenizer has one, the tokens of the text, an end token, and zeros. Of a text that is
too long the end is cut off, and the end token kept. The number 0 is a token of some vocabularies (CLIP's `!`), so what
is padding is what follows the end token, which is never 0 (`lengths`).

A caption with a tab in it is a question and its answer: 'what is this?\\ta cat'. Its row is the begin token, the
question, an end token, the answer, and an end token.
"""

import dataclasses
import hashlib
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from vit_jax.data import cleaning
from vit_jax.errors import UserError
from vit_jax.options import option

# What a batch can have of its texts: the tokens; the place in them at which the answer begins, which is the whole
# caption where there is no question; and the UTF-8 bytes of the answer, without what was cut off.
ENTRIES = ('text', 'answer_start', 'answer_bytes')
QUESTION_END = '\t'
_CAPTION = 0x4341  # keeps these streams apart from other users of the same seed


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """How captions become tokens; it matters only to an objective that reads text."""
  # bytes; bpe: learnt from the training captions; clip: CLIP's, of the package open_clip_torch; or a file: a
  # tokenizer.json, a SentencePiece .model, or CLIP's bpe_simple_vocab_16e6.txt.gz
  tokenizer: str = 'bytes'
  length: int = option(64, least=2, most=2**16)  # tokens of a text, with those of its begin and end
  vocab_size: int = option(8192, least=259, most=2**24)  # of tokenizer=bpe: 256 bytes, 3 marks, and what is learnt
  clean: cleaning.Kind = 'none'  # what is done to a text before it becomes tokens
  pad: int = option(0, least=0, most=2**24)  # the token after the end; only a model that reads padding can have another
  # Of the tokenizer. It replaces the path of a file in the run's identity, and another tokenizer there is refused.
  digest: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Tokenizer:
  """Text to tokens and back.

  Attributes:
    length: tokens of a row.
    vocab_size: token numbers are less than it.
    begin: the number of the token that a row begins with; None: it has none.
    end: the number of the token after the text.
    digest: 16 hex digits: equal for tokenizers that do the same.
    ids: texts -> the token numbers of each, without begin and end.
    text: token numbers without begin and end -> the text.
    learnt: the content of a tokenizer.json, of one that was learnt from the data or is such a file; else None.
    pad: the number after the end. Only 0 tells how long a text is (`lengths`); others are for models that read padding.
  """
  length: int
  vocab_size: int
  begin: int | None
  end: int
  digest: str
  ids: Callable[[Sequence[str]], Sequence[Sequence[int]]]
  text: Callable[[Sequence[int]], str]
  learnt: str | None = None
  pad: int = 0

  def encode(self, texts: Sequence[str]) -> np.ndarray:
    """Rows of tokens, int32 [N, length]."""
    return Tokens.of(self, texts)(np.arange(len(texts)))['text']

  def decode(self, rows: np.ndarray) -> list[str]:
    """The text of each row of token numbers [N, T], up to its end tokens if it has any."""
    texts = []
    for row in np.asarray(rows).tolist():
      row = row[1 if self.begin is not None and row[:1] == [self.begin] else 0:]
      parts = [[]]
      for number in row[:int(lengths(np.array([row]))[0])]:
        parts[-1].append(number) if number != self.end else parts.append([])
      parts = parts[:-1] if len(parts) > 1 and not parts[-1] else parts
      texts.append(QUESTION_END.join(map(self.text, parts[:2])))
    return texts

  def framed(self, answer: Sequence[int], question: Sequence[int] | None = None) -> tuple[np.ndarray, int, int]:
    """(the tokens of a text with their marks, the place of the answer, how many of its tokens there are).

    Of what is longer than `length`, the end of the answer is cut off, and then that of the question: of an answer at
    least one token is kept.
    """
    marks = () if self.begin is None else (self.begin,)
    if question is not None:
      marks = (*marks, *question[:max(0, self.length - len(marks) - 3)], self.end)
    answer = answer[:max(0, self.length - len(marks) - 1)]
    return np.array([*marks, *answer, self.end][:self.length], np.int32), len(marks), len(answer)


@dataclasses.dataclass(frozen=True, eq=False)
class Tokens:
  """Many texts as tokens, without their padding.

  Attributes:
    flat: [all tokens] int32; those of text i are at offsets[i] to offsets[i + 1].
    starts, sizes: 'answer_start' and 'answer_bytes' of each (`ENTRIES`).
    length: tokens of a row.
    pad: what a row is filled up with.
    cut: how many of the texts were longer than a row.
  """
  flat: np.ndarray
  offsets: np.ndarray
  starts: np.ndarray
  sizes: np.ndarray
  length: int
  pad: int = 0
  cut: int = 0

  @classmethod
  def of(cls, tokenizer: Tokenizer, texts: Sequence[str]) -> 'Tokens':
    questions, answers = [], []
    for text in map(composed, texts):
      question, tab, answer = text.partition(QUESTION_END)
      questions.append(question if tab else None)
      answers.append(answer if tab else text)
    asked = iter(tokenizer.ids([question for question in questions if question is not None]))
    rows, starts, sizes, cut = [], [], [], 0
    for question, answer, ids in zip(questions, answers, tokenizer.ids(answers), strict=True):
      before = None if question is None else next(asked)
      row, start, kept = tokenizer.framed(ids, before)
      cut += len(row) < (tokenizer.begin is not None) + (0 if before is None else len(before) + 1) + len(ids) + 1
      size = len(answer.encode(errors='replace'))
      rows.append(row)
      starts.append(start)
      sizes.append(size if kept == len(ids) else min(size, len(tokenizer.text(ids[:kept]).encode())))
    as_int32 = lambda values: np.array(values, np.int32)
    return cls(np.concatenate([np.zeros(0, np.int32), *rows]), np.cumsum([0, *map(len, rows)]), as_int32(starts),
               as_int32(sizes), tokenizer.length, tokenizer.pad, cut)

  def __call__(self, which: np.ndarray) -> dict[str, np.ndarray]:
    """The `ENTRIES` of the texts with these numbers: int32 [n, length], [n] and [n]."""
    which = np.asarray(which)
    start, stop = self.offsets[which], self.offsets[which + 1]
    places = start[:, None] + np.arange(self.length)
    real = places < stop[:, None]
    out = np.full(real.shape, self.pad, np.int32)
    out[real] = self.flat[places[real]]
    return dict(zip(ENTRIES, (out, self.starts[which], self.sizes[which]), strict=True))


def composed(text: str) -> str:
  """With each accent in one character with its letter: a text that looks the same has the same tokens.

  Names of files often have them apart, and so do the class names that are folders.
  """
  return unicodedata.normalize('NFC', text)


class Captions:
  """The captions of some pictures as tokens: picture i has one text or several.

  Attributes:
    several: whether a picture has more than one.
    cut, count: how many of the texts were longer than a row, and how many there are.
  """

  def __init__(self, captions: Sequence[Sequence[str]], tokenizer: Tokenizer):
    self._counts = np.array([len(texts) for texts in captions], np.int64)
    self._starts = np.cumsum(self._counts) - self._counts
    self._tokens = Tokens.of(tokenizer, [text for texts in captions for text in texts])
    self.several = bool((self._counts > 1).any())
    self.cut, self.count = self._tokens.cut, int(self._counts.sum())

  def __call__(self, pictures: np.ndarray, drawn: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The `ENTRIES` of a caption of each of these pictures [n]: the first, or of k captions number `drawn` % k."""
    which = 0 if drawn is None else drawn % self._counts[pictures].astype(np.uint64)
    return self._tokens(self._starts[pictures] + np.asarray(which).astype(np.int64))


def draws(seed: int, step: int, rows: np.ndarray) -> np.ndarray:
  """A random number for each row of a global batch, uint64 [n]: a pure function of (seed, step, row)."""
  key = np.array([seed % 2**64, _CAPTION], np.uint64)  # a plain list would go through float64 and lose bits
  return np.random.Philox(key=key, counter=[0, 0, 0, step]).random_raw(int(rows.max()) + 1)[rows]


def lengths(rows: np.ndarray) -> np.ndarray:
  """The tokens of each row [N, T] without its padding, begin and end included: int [N]. For NumPy's arrays and JAX's.

  A zero inside of a text counts: it is a token.
  """
  return ((rows != 0).astype(np.int32) * np.arange(1, rows.shape[1] + 1, dtype=np.int32)[None]).max(1)


def tokenizer(config: TextConfig, captions: Callable[[], Sequence[str]]) -> Tokenizer:
  """The tokenizer of a config.

  Args:
    config: the options.
    captions: gives the texts that tokenizer=bpe is learnt from.

  Raises:
    UserError: there is none of that name, its file is missing or of another kind, or a package that it needs.
  """
  if config.tokenizer == 'bytes':
    return configured(config, _of_bytes(config))
  from vit_jax.data import vocabularies
  clean = cleaning.CLEAN[config.clean]
  return configured(config, vocabularies.tokenizer(config, lambda: [clean(composed(text)) for text in captions()]))


def configured(config: TextConfig, plain: Tokenizer) -> Tokenizer:
  """A tokenizer with the cleaning and the padding of a config. Raises UserError if its digest is another."""
  found, clean = plain, cleaning.CLEAN[config.clean]
  if (config.clean, config.pad) != (TextConfig.clean, TextConfig.pad):
    if config.pad >= plain.vocab_size:
      raise UserError(f'data.text.pad={config.pad}: the tokenizer has {plain.vocab_size} tokens')
    digest = hashlib.blake2b(f'{plain.digest} {config.clean} {config.pad}'.encode(), digest_size=8).hexdigest()
    found = dataclasses.replace(plain, pad=config.pad, digest=digest,
                                ids=lambda texts: plain.ids(list(map(clean, texts))))
  if config.digest not in (None, found.digest):
    raise UserError(f'data.text.tokenizer={config.tokenizer}: expected the tokenizer with data.text.digest='
                    f'{config.digest}, got {found.digest}')
  return found


def vocab_size(config: TextConfig) -> int:
  """The `vocab_size` of the tokenizer of a config, without the texts that it may be learnt from; raises as above."""
  return config.vocab_size if config.tokenizer == 'bpe' else tokenizer(config, list).vocab_size


_BEGIN, _END, _FIRST = 1, 2, 3


def _of_bytes(config):
  """UTF-8: byte b is token b + 3."""
  def ids(texts):
    return [np.frombuffer(text.encode(errors='replace'), np.uint8).astype(np.int32) + _FIRST for text in texts]

  def text(ids):
    return bytes(i - _FIRST for i in ids if _FIRST <= i < _FIRST + 256).decode(errors='replace')

  digest = hashlib.blake2b(repr(('bytes', config.length)).encode(), digest_size=8).hexdigest()
  return Tokenizer(config.length, 256 + _FIRST, _BEGIN, _END, digest, ids, text)
