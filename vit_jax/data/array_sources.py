"""Sources without files: arrays in memory, and noise that is generated when it is read."""

import dataclasses
import functools

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
  """A split in memory: `images` uint8 [N,H,W,C], `labels` int32 [N]."""

  name: str
  class_names: tuple[str, ...]
  images: np.ndarray
  labels: np.ndarray

  @property
  def channels(self):
    return self.images.shape[3]

  @property
  def image_size(self):
    return self.images.shape[1:3]

  def __len__(self):
    return len(self.images)

  def read(self, i):
    return self.images[i]

  def where(self, i):
    return f'{self.name}, picture {i}'

  key = where


@dataclasses.dataclass(frozen=True, eq=False)
class RandomSource:
  """Noise of any shape, generated when it is read, to measure input and training without data. Labels are cyclic."""

  name: str
  class_names: tuple[str, ...]
  size: int
  image_size: tuple[int, int]
  channels: int
  stream: int  # different for each split
  images = None

  @functools.cached_property
  def labels(self):
    return (np.arange(self.size) % len(self.class_names)).astype(np.int32)

  def __len__(self):
    return self.size

  def read(self, i):
    shape = (*self.image_size, self.channels)
    values = int(np.prod(shape))
    words = np.random.Philox(key=[int(i), self.stream]).random_raw(-(-values // 8))
    return words.astype('<u8').view(np.uint8)[:values].reshape(shape)

  def where(self, i):
    return f'{self.name}, picture {i}'

  key = where
