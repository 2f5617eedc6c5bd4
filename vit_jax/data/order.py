"""The order of examples: which example is in which row of which batch. It is a pure function of the seed and the step.

So the step is the whole state of the data. Permutations are made by sorting the raw output of Philox (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"). NumPy keeps the raw stream of a bit generator stable between
versions, but not the result of `permutation`, and a run must be able to resume under a newer NumPy.
"""

import threading
from collections.abc import Sequence

import numpy as np

_SHUFFLE = 0x5348  # keeps these streams apart from other users of the same seed


def raw_permutation(n: int, key: int, stream: int, counter: int = 0) -> np.ndarray:
  """A permutation of range(n), int64 [n], determined by (key, stream, counter)."""
  words = np.array([key % 2**64, stream], np.uint64)  # a plain list would go through float64 and lose bits
  raw = np.random.Philox(key=words, counter=[0, 0, counter, 0]).random_raw(n)
  return np.argsort(raw, kind='stable')


class TrainOrder:
  """The training order: epoch after epoch, each in its own order. Batches may span epochs, and nothing is dropped.

  With `repeats`, each picture of a batch occurs in that many of its rows; the last ones in fewer if the batch size is
  not a multiple. Its rows are as far apart as possible, so that Mixup's partner, the next row, is another picture.
  """

  def __init__(self, n: int, batch_size: int, seed: int, repeats: int = 1):
    self.n, self.batch_size, self.seed, self.repeats = n, batch_size, seed, repeats
    self._epochs, self._lock = {}, threading.Lock()

  def __call__(self, step: int) -> np.ndarray:
    """Positions 0..n-1 of the examples of global batch `step`, int64 [batch_size]."""
    pictures = -(-self.batch_size // self.repeats)
    seen = step * pictures + np.arange(pictures, dtype=np.int64)
    epoch, place = np.divmod(seen, self.n)
    first, last = int(epoch[0]), int(epoch[-1])
    if first == last:
      positions = self._epoch(first)[place]
    else:
      positions = np.concatenate([self._epoch(e)[place[epoch == e]] for e in range(first, last + 1)])
    return np.tile(positions, self.repeats)[:self.batch_size]

  def _epoch(self, epoch):
    with self._lock:  # several threads may reach a new epoch at once; sort only once
      if epoch not in self._epochs:
        while len(self._epochs) >= 3:
          self._epochs.pop(next(iter(self._epochs)))
        self._epochs[epoch] = raw_permutation(self.n, self.seed, _SHUFFLE, epoch)
      return self._epochs[epoch]

  def __getstate__(self):
    return {'n': self.n, 'batch_size': self.batch_size, 'seed': self.seed, 'repeats': self.repeats}

  def __setstate__(self, state):
    self.__init__(**state)


class LeftOut:
  """An order without some of its batches: each later batch comes one step earlier for each that is left out."""

  def __init__(self, order: TrainOrder, left_out: Sequence[int]):
    """`left_out` numbers batches from 1: batch n is that of the n-th step of the whole order."""
    self._order, self._left_out, self.batch_size = order, left_out, order.batch_size

  def __call__(self, step: int) -> np.ndarray:
    return self._order(batch_of(step, self._left_out))


def batch_of(step: int, left_out: Sequence[int]) -> int:
  """The place in the whole order, from 0, of the batch of a step, from 0, where some batches are left out."""
  for number in sorted(set(left_out)):
    step += number - 1 <= step
  return step


class EvalOrder:
  """The order of evaluation: every example once, in stored order, with the last batch padded with -1."""

  def __init__(self, n: int, batch_size: int):
    self.n, self.batch_size = n, batch_size

  @property
  def num_steps(self) -> int:
    return -(-self.n // self.batch_size)

  def __call__(self, step: int) -> np.ndarray:
    """Positions 0..n-1, or -1 for padding, of global batch `step`, int64 [batch_size]."""
    places = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
    return np.where(places < self.n, places, -1)
