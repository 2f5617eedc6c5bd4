"""Reading batches: by indexing where pictures are in memory, record by record through grain where they are not.

Both give dict(image uint8 [b,H,W,C], label int32 [b], weight float32 [b]) for the rows that this process owns, and
the same values whichever way, and by however many workers, they are read. Weight 0 marks padding and bad records;
their pictures and labels are zeros.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator

import numpy as np
from absl import flags

from vit_jax.data import host_augment as transforms_lib
from vit_jax.data.pictures import BadPicture
from vit_jax.data.splits import Part
from vit_jax.errors import UserError

Batch = dict[str, np.ndarray]

_CHUNK = 32  # records that one thread or worker reads at a time: small enough to share out one batch
_BATCHES_AHEAD = 2
_PAUSES = (0.1, 1.0)  # seconds before a record that could not be fetched is tried again


class MemoryBatches:
  """Batches cut out of arrays. Nothing is read ahead: a batch takes microseconds, and the device is busy meanwhile."""

  def __init__(self, images: np.ndarray, labels: np.ndarray, order: Callable[[int], np.ndarray], steps: range,
               rows: np.ndarray):
    self._images, self._labels, self._order, self._rows = images, labels, order, rows
    self._steps = iter(steps)

  def __iter__(self) -> Iterator[Batch]:
    return self

  def __next__(self) -> Batch:
    positions = self._order(next(self._steps))[self._rows]
    real = positions >= 0
    if real.all():
      image, label = self._images[positions], self._labels[positions]
    else:
      image = np.zeros((len(positions), *self._images.shape[1:]), np.uint8)
      label = np.zeros(len(positions), np.int32)
      image[real], label[real] = self._images[positions[real]], self._labels[positions[real]]
    return {'image': image, 'label': label, 'weight': real.astype(np.float32)}

  def take_errors(self) -> list[str]:
    return []

  def close(self) -> None:
    self._steps = iter(())


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkReader:
  """Reads chunk k of the batches: `chunks` per step, each of up to 32 of this process's rows. Travels to workers."""

  part: Part
  order: Callable[[int], np.ndarray]
  transforms: tuple
  image_shape: tuple[int, int, int]
  seed: int
  first_step: int
  rows: np.ndarray  # of the global batch: those of this process

  @property
  def chunks(self) -> int:
    return -(-len(self.rows) // _CHUNK)

  def __call__(self, k: int) -> Batch:
    step = self.first_step + k // self.chunks
    start = (k % self.chunks) * _CHUNK
    rows = self.rows[start:start + _CHUNK]
    positions = self.order(step)[rows]
    image = np.zeros((len(positions), *self.image_shape), np.uint8)
    label, weight = np.zeros(len(positions), np.int32), np.zeros(len(positions), np.float32)
    errors = []
    for row, position in enumerate(positions):
      if position < 0:
        continue
      i = int(self.part.examples[position])
      try:
        image[row] = self._read(i, step, int(rows[row]))
      except BadPicture as error:
        errors.append(f'{self.part.source.where(i)}: {error}')
      else:
        label[row], weight[row] = self.part.source.labels[i], 1
    message = np.frombuffer(json.dumps(errors).encode(), np.uint8)  # arrays are what passes between processes
    return {'image': image, 'label': label, 'weight': weight, 'errors': message}

  def _read(self, i, step, row):
    picture = _read_again(self.part.source, i)
    rng = None
    for transform in self.transforms:
      if transform.random and rng is None:
        rng = transforms_lib.generator(self.seed, step, row)
      picture = transform(picture, rng)
    return picture


def _read_again(source, i):
  """What the source holds, tried three times: a far disk fails for a moment, and a lost picture changes the run."""
  for pause in _PAUSES:
    try:
      return source.read(i)
    except BadPicture:
      time.sleep(pause)
  return source.read(i)


class RecordBatches:
  """Batches read record by record, ahead of time, by threads or by `workers` processes."""

  def __init__(self, reader: ChunkReader, num_steps: int, workers: int, on_error: str):
    import grain  # not needed, and not paid for, where pictures are in memory
    self._chunks_per_batch, self._on_error, self._errors = reader.chunks, on_error, []
    self._left = num_steps
    threads = 2 if workers else min(16, _cores())
    ahead = max(threads, -(-_BATCHES_AHEAD * reader.chunks // max(1, workers)))
    dataset = grain.MapDataset.range(num_steps * reader.chunks).map(reader)
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    if workers:
      if not flags.FLAGS.is_parsed():  # as in a notebook; grain reads its own flags when it starts processes
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
          raise UserError(f'cannot read {error}; take it out, or set data.on_error to "skip"')
        self._errors.append(error)
    batch = {key: np.concatenate([chunk[key] for chunk in chunks]) for key in ('image', 'label', 'weight')}
    for chunk in chunks:  # grain holds on to the last ones, and their shared memory with them
      chunk.clear()
    return batch

  def take_errors(self) -> list[str]:
    """The records of the batches given out since the last call that could not be read, each named with its reason."""
    errors, self._errors = self._errors, []
    return errors

  def close(self) -> None:
    """Stops reading ahead, and the workers."""
    self._left = 0
    if self._chunks is not None:
      self._chunks.close()
      self._chunks = None


def _cores():
  """The cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
