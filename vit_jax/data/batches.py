"""Reading of batches: by indexing if pictures are in memory, else record by record through grain.

Batches are dict(image uint8 [b,H,W,C], weight float32 [b], and what else the source knows of its examples) of the rows
that this process owns. Their values do not depend on how they are read or on the number of workers. Weight 0 marks
padding and bad records, all of whose entries are zeros.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import flags

from vit_jax.data import host_augment as transforms_lib
from vit_jax.data import text
from vit_jax.data.pictures import BadPicture
from vit_jax.data.splits import Part
from vit_jax.data.text import Captions
from vit_jax.errors import UserError

Batch = dict[str, np.ndarray]

_CHUNK = 32  # records that a thread or worker reads at a time; small, so that several share a batch
_BATCHES_AHEAD = 2
_PAUSES = (0.1, 1.0)  # seconds before each retry of a record that could not be read


class MemoryBatches:
  """Batches indexed from arrays. Nothing is read ahead, as a batch takes microseconds while the device is busy."""

  def __init__(self, arrays: dict[str, np.ndarray], order: Callable[[int], np.ndarray], steps: range,
               rows: np.ndarray):
    """`arrays` hold an entry of all examples each."""
    self._arrays, self._order, self._rows = arrays, order, rows
    self._steps = iter(steps)

  def __iter__(self) -> Iterator[Batch]:
    return self

  def __next__(self) -> Batch:
    positions = self._order(next(self._steps))[self._rows]
    real = positions >= 0
    if real.all():
      batch = {name: array[positions] for name, array in self._arrays.items()}
    else:
      batch = {name: _zeros(len(positions), array) for name, array in self._arrays.items()}
      for name, array in self._arrays.items():
        batch[name][real] = array[positions[real]]
    return batch | {'weight': real.astype(np.float32)}

  def take_errors(self) -> list[str]:
    return []

  def close(self) -> None:
    self._steps = iter(())


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkReader:
  """Reads chunk k of the batches: `chunks` per step, each of up to 32 of this process's rows. It is sent to workers."""

  part: Part
  order: Callable[[int], np.ndarray]
  transforms: tuple
  image_shape: tuple[int, int, int]
  seed: int | None  # None: nothing is random
  first_step: int
  rows: np.ndarray  # this process's rows of the global batch

  @property
  def chunks(self) -> int:
    return -(-len(self.rows) // _CHUNK)

  def __call__(self, k: int) -> Batch:
    step = self.first_step + k // self.chunks
    start = (k % self.chunks) * _CHUNK
    rows = self.rows[start:start + _CHUNK]
    positions = self.order(step)[rows]
    fields, errors = self.part.fields, []
    batch = {'image': np.zeros((len(positions), *self.image_shape), np.uint8),
             **{name: _zeros(len(positions), array) for name, array in fields.items()},
             'weight': np.zeros(len(positions), np.float32)}
    for row, position in enumerate(positions):
      if position < 0:
        continue
      i = int(self.part.examples[position])
      try:
        batch['image'][row] = self._read(i, step, int(rows[row]))
      except BadPicture as error:
        errors.append(f'{self.part.source.where(i)}: {error}')
      else:
        batch['weight'][row] = 1
        for name, array in fields.items():
          batch[name][row] = array[i]
    return batch | {'errors': np.frombuffer(json.dumps(errors).encode(), np.uint8)}  # only arrays pass on

  def _read(self, i, step, row):
    picture = _read_again(self.part.source, i)
    rng = None
    for transform in self.transforms:
      if transform.random and rng is None:
        rng = transforms_lib.generator(self.seed, step, row)
      picture = transform(picture, rng)
    return picture


def _read_again(source, i):
  """Reads record i, with three tries: remote storage may fail briefly, and a lost picture would change the run."""
  for pause in _PAUSES:
    try:
      return source.read(i)
    except BadPicture:
      time.sleep(pause)
  return source.read(i)


class RecordBatches:
  """Batches that are read ahead record by record, by threads or by `workers` processes."""

  def __init__(self, reader: ChunkReader, num_steps: int, workers: int, on_error: str):
    import grain  # imported only here, as it is not needed for pictures in memory
    self._chunks_per_batch, self._on_error, self._errors = reader.chunks, on_error, []
    self._left = num_steps
    threads = 2 if workers else min(16, _cores())
    ahead = max(threads, -(-_BATCHES_AHEAD * reader.chunks // max(1, workers)))
    dataset = grain.MapDataset.range(num_steps * reader.chunks).map(reader)
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    if workers:
      if not flags.FLAGS.is_parsed():  # as in a notebook: grain reads its own flags when it starts processes
        flags.FLAGS.mark_as_parsed()
      dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    self._chunks = iter(dataset)

  def __iter__(self) -> Iterator[Batch]:
    return self

  def __next__(self) -> Batch:
    if self._left <= 0:
      self.close()
      raise StopIteration
    self._left -= 1
    chunks = [next(self._chunks) for _ in range(self._chunks_per_batch)]
    for chunk in chunks:
      for error in json.loads(bytes(chunk.pop('errors'))):
        if self._on_error == 'stop':
          self.close()
          raise UserError(f'cannot read {error}; remove it, or set data.on_error to "skip"')
        self._errors.append(error)
    batch = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    for chunk in chunks:  # grain keeps the last chunks, and with them their shared memory
      chunk.clear()
    return batch

  def take_errors(self) -> list[str]:
    """Messages on records that could not be read, of the batches returned since the last call."""
    errors, self._errors = self._errors, []
    return errors

  def close(self) -> None:
    """Stops reading ahead and ends the workers."""
    self._left = 0
    if self._chunks is not None:
      self._chunks.close()
      self._chunks = None


class TextBatches:
  """Batches with entries of their captions, some of `text.ENTRIES`; zeros where the weight is 0."""

  def __init__(self, batches: MemoryBatches | RecordBatches, captions: Captions, entries: tuple[str, ...],
               order: Callable[[int], np.ndarray], steps: range, rows: np.ndarray, seed: int | None):
    """`seed` draws one of several captions; None: it is the first."""
    self._batches, self._captions, self._entries = batches, captions, entries
    self._order, self._rows, self._seed = order, rows, seed
    self._steps = iter(steps)

  def __iter__(self) -> Iterator[Batch]:
    return self

  def __next__(self) -> Batch:
    batch, step = next(self._batches), next(self._steps)
    positions = np.maximum(self._order(step)[self._rows], 0)
    drawn = None if self._seed is None else text.draws(self._seed, step, self._rows)
    texts, real = self._captions(positions, drawn), (batch['weight'] > 0).astype(np.int32)
    return batch | {name: texts[name] * real.reshape(-1, *[1] * (texts[name].ndim - 1)) for name in self._entries}

  def take_errors(self) -> list[str]:
    return self._batches.take_errors()

  def close(self) -> None:
    self._batches.close()


def _zeros(count, like):
  """Zeros for an entry of so many rows."""
  return np.zeros((count, *like.shape[1:]), like.dtype)


def _cores():
  """The cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
