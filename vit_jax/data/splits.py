"""The splits of a source into train, val and test. They are class-balanced and the same for every run.

Of a source with captions they are drawn at random, as most names occur once or twice. A picture with several labels
counts as one of the rarest of its classes, so that no part goes without these.

Rules:
- If a source has one held-out part, it is `test`, whatever its name (ImageNet has public labels only for `validation`;
  a folder may have only train/ and val/). If it has two, they are `val` and `test`.
- If it has no held-out part, a fifth of the source becomes `test`.
- If it has no val, val is taken from train, before subsets are taken.
"""

import dataclasses
import math

import numpy as np

from vit_jax.data.order import raw_permutation
from vit_jax.data.sources import Source
from vit_jax.errors import UserError

TEST_FRACTION = 0.2  # of a source without a held-out part
VAL_FRACTION = 0.1
VAL_MAX = 10_000

# A constant seed, as subsets must be equal across the models, seeds and machines of a law.
_SEED = 0
_LESS_ONE = 'train, less one to learn from'
_TEST, _VAL, _SUBSET = 0x54, 0x56, 0x53


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """Some examples of a source; `examples` int64 [n] are ascending indices into it."""

  source: Source
  examples: np.ndarray

  @property
  def labels(self) -> np.ndarray:
    """The labels of the examples, int32 [n] or uint8 [n, C]."""
    return self.source.labels[self.examples]

  @property
  def captions(self) -> list[tuple[str, ...]] | None:
    """The captions of the examples; None if the source has none."""
    return None if self.source.captions is None else [self.source.captions[i] for i in self.examples]

  @property
  def fields(self) -> dict[str, np.ndarray]:
    """What is known of all examples of the source besides their pictures, by the name of its entry in a batch."""
    return {'label': self.source.labels}


def balanced_order(labels: np.ndarray, stream: int) -> np.ndarray:
  """An order of all examples, int64 [N], in which every prefix is class-balanced.

  Each class is shuffled by a fixed permutation and spread evenly over (0, 1). Examples are ordered by these places. So
  a prefix of n examples holds n N_c / N examples of class c, to within two, and prefixes are nested by construction.

  Args:
    labels: int [N].
    stream: separates different uses of the constant seed.
  """
  shuffled = raw_permutation(len(labels), _SEED, stream)
  by_class = shuffled[np.argsort(labels[shuffled], kind='stable')]
  counts = np.bincount(labels)
  starts = np.cumsum(counts) - counts
  sorted_labels = labels[by_class]
  rank = np.arange(len(labels)) - starts[sorted_labels]
  place = (rank + 0.5) / counts[sorted_labels]
  tie = np.empty(len(labels), np.int64)  # breaks ties at random, not in favour of class 0
  tie[shuffled] = np.arange(len(labels))
  return by_class[np.lexsort((tie[by_class], place))]


def strata(labels: np.ndarray) -> np.ndarray:
  """The class int [N] that each example counts as: its only one, or the rarest of several; C if it has none."""
  if labels.ndim == 1:
    return labels
  rarest_first = np.argsort(labels.sum(axis=0, dtype=np.int64), kind='stable')
  first = labels[:, rarest_first].argmax(axis=1)
  return np.where(labels.any(axis=1), rarest_first[first], labels.shape[1])


def assign(sources: dict[str, Source], val_examples: int | None, unique_examples: int | None) -> dict[str, Part]:
  """Assigns the examples of a source's own splits to parts 'train', 'val' and 'test'.

  Args:
    sources: 'train', and 'val' and 'test' if the source has them.
    val_examples: the size of val; None for the default, 0 for no val.
    unique_examples: the size of the training subset; None or 0 for all examples that are left.

  Raises:
    UserError: more examples are asked for than there are.
  """
  sources = dict(sources)
  if 'test' not in sources and 'val' in sources:
    sources['test'] = sources.pop('val')
  train = whole(sources['train'])
  if 'test' in sources:
    test = whole(sources['test'])
  else:
    if len(train.examples) == 1:
      raise UserError(f'{sources["train"].name}: 1 picture, which is the test split; expected two or more, or a test '
                      'split of its own')
    test, train = _cut(train, math.ceil(TEST_FRACTION * len(train.examples)), _TEST)

  if 'val' in sources:
    val = whole(sources['val'])
    if val_examples is not None:
      val = _cut(val, _checked('val_examples', val_examples, len(val.examples), 'the val split'), _VAL)[0]
  else:
    n = len(train.examples)
    wanted = min(round(VAL_FRACTION * n), VAL_MAX) if val_examples is None else val_examples
    val, train = _cut(train, _checked('val_examples', wanted, n - 1, _LESS_ONE), _VAL)

  wanted = _checked('unique_examples', unique_examples or 0, len(train.examples),
                    f'train after {len(val.examples):,} for val')
  if wanted:
    train = _cut(train, wanted, _SUBSET)[0]
  return {'train': train, 'val': val, 'test': test}


def whole(source: Source) -> Part:
  """All examples of a source."""
  return Part(source, np.arange(len(source)))


def balanced(part: Part, count: int) -> Part:
  """A class-balanced part of a part, nested like training subsets."""
  return _cut(part, count, _SUBSET)[0]


def _cut(part, n, stream):
  """Splits a part into (a class-balanced part of n examples, the rest)."""
  one_each = part.source.captions is None
  order = balanced_order(strata(part.labels) if one_each else np.zeros(len(part.examples), np.int32), stream)
  return tuple(Part(part.source, np.sort(part.examples[piece])) for piece in (order[:n], order[n:]))


def left_for_training(whole: int, val_examples: int, unique_examples: int | None) -> int:
  """Training examples of a source of `whole` that has no val of its own. Raises UserError as `assign` does."""
  left = whole - _checked('val_examples', val_examples, whole - 1, _LESS_ONE)
  return _checked('unique_examples', unique_examples or 0, left, f'train after {val_examples:,} for val') or left


def _checked(key, wanted, available, of_what):
  if wanted > available:
    raise UserError(f'data.{key}: {wanted:,}, but there are only {available:,} ({of_what})')
  return wanted
