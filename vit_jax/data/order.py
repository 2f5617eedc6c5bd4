"""Which example stands in which row of which batch: a pure function, so that the data's state is the step.

Sorting the raw output of Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") gives the
permutations: NumPy keeps a bit generator's raw stream stable, but not what `permutation` makes of it, and a run must
go on under a newer NumPy where it stopped.
"""

import threading

import numpy as np

_SHUFFLE = 0x5348  # keeps these streams apart from other users of the same seed


def raw_permutation(n: int, key: int, stream: int, counter: int = 0) -> np.ndarray:
  """A permutation of range(n), int64 [n], fixed by (key, stream, counter)."""
  words = np.array([key % 2**64, stream], np.uint64)  # a plain list would go through float64 and lose bits
  raw = np.random.Philox(key=words, counter=[0, 0, counter, 0]).random_raw(n)
  return np.argsort(raw, kind='stable')


class TrainOrder:
  """Epoch after epoch, each in its own order; batches run across the borders of epochs and nothing is dropped.

  With `repeats` each picture of a batch stands in so many of its rows (the last of them in fewer, where the batch size
  is no multiple), as far apart as can be: Mixup's partner, the next row, is another picture.
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
    with self._lock:  # reading threads reach a new epoch together: sort once
      if epoch not in self._epochs:
        while len(self._epochs) >= 3:
          self._epochs.pop(next(iter(self._epochs)))
        self._epochs[epoch] = raw_permutation(self.n, self.seed, _SHUFFLE, epoch)
      return self._epochs[epoch]

  def __getstate__(self):
    return {'n': self.n, 'batch_size': self.batch_size, 'seed': self.seed, 'repeats': self.repeats}

  def __setstate__(self, state):
    self.__init__(**state)


class EvalOrder:
  """Every example once, in the order in which it is stored; the last batch is filled up with -1."""

  def __init__(self, n: int, batch_size: int):
    self.n, self.batch_size = n, batch_size

  @property
  def num_steps(self) -> int:
    return -(-self.n // self.batch_size)

  def __call__(self, step: int) -> np.ndarray:
    """Positions 0..n-1, or -1 for padding, of global batch `step`, int64 [batch_size]."""
    places = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
    return np.where(places < self.n, places, -1)
