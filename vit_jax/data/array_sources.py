"""Sources without files: arrays in memory, and noise that is generated when it is read."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.errors import UserError

_GIVEN: dict[str, dict[str, 'ArraySource']] = {}  # the splits of `register`, by the name of the data


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
  """A split in memory: `images` uint8 [N,H,W,C], `labels` int32 [N] or uint8 [N,C], perhaps with captions."""

  name: str
  class_names: tuple[str, ...]
  images: np.ndarray
  labels: np.ndarray
  captions: Sequence[tuple[str, ...]] | None = None

  @property
  def channels(self):
    return self.images.shape[3]

  @property
  def image_size(self):
    return self.images.shape[1:3]

  @property
  def several_labels(self):
    return self.labels.ndim == 2

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
  captions = None
  several_labels = False

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


def register(splits: dict[str, Sequence[Any]], class_names: Sequence[str] | None = None) -> str:
  """Makes arrays a source of this process; returns what names it as data.source, 'arrays:DIGEST' of the contents.

  Args:
    splits: {'train': (pictures, labels) or (pictures, labels, captions)}, perhaps with 'val' and 'test'. Pictures are
      uint8 [N, H, W] or [N, H, W, C], or floats from 0 to 1; labels are numbers from 0, or names; or several of a
      picture, [N, C] of 0 and 1; or None where there are captions. A caption is a text or several, of each picture.
    class_names: the names of the classes; default: the labels themselves.

  Raises:
    UserError: a shape, a type, a label, or a number of pictures, labels and captions that does not fit.
  """
  given = {split: (_pixels(split, images), *rest) for split, (images, *rest) in splits.items()}
  arrays = {split: (images, *_labels_and_captions(split, images, *rest)) for split, (images, *rest) in given.items()}
  if len({(labels is None, captions is None) for _, labels, captions in arrays.values()}) > 1:
    raise UserError(f'arrays: {", ".join(arrays)}: expected labels in all of them or in none, and captions likewise')
  names, sources, hashed = _names(arrays, class_names), {}, hashlib.blake2b(digest_size=5)
  hashed.update(repr(names).encode())
  for split, (images, labels, captions) in arrays.items():
    numbers = np.zeros(len(images), np.int32) if labels is None else (
        _numbers if labels.ndim == 1 else _several)(split, labels, names)
    if len(images) != len(numbers) or not len(images):
      raise UserError(f'arrays: {len(images):,} pictures and {len(numbers):,} labels in {split}; expected one label '
                      'for each picture')
    sources[split] = images, numbers, captions
    hashed.update(repr((split, images.shape, *(() if captions is None else (captions,)))).encode(errors='replace'))
    hashed.update(np.ascontiguousarray(images))
    hashed.update(np.ascontiguousarray(numbers))
  name = f'arrays:{hashed.hexdigest()}'
  _GIVEN[name] = {split: ArraySource(name, names, *given) for split, given in sources.items()}
  return name


def _labels_and_captions(split, images, labels, captions=None):
  """(labels [..] or None, captions or None)."""
  if captions is None:
    if labels is None:
      raise UserError(f'arrays: neither labels nor captions in {split}; expected one of them')
    return np.asarray(labels), None
  captions = [tuple(texts) if isinstance(texts, (list, tuple, np.ndarray)) else (texts,) for texts in captions]
  if len(captions) != len(images):
    raise UserError(f'arrays: {len(images):,} pictures and captions of {len(captions):,} in {split}; expected as many')
  for i, texts in enumerate(captions):
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
      raise UserError(f'arrays: {split} has the caption {texts!r} of picture {i}; expected a text, or several')
  return None if labels is None else np.asarray(labels), captions


def registered(name: str) -> dict[str, ArraySource]:
  """The splits of a source of this process; UserError where its arrays were given to another one."""
  if name not in _GIVEN:
    raise UserError(f'data.source={name}: these arrays are not in this process; give them with vit_jax.arrays first')
  return _GIVEN[name]


def _pixels(split, images):
  """uint8 [N, H, W, C]."""
  images = np.asarray(images)
  if images.ndim == 3:
    images = images[..., None]
  if images.ndim != 4 or images.shape[3] not in (1, 3):
    raise UserError(f'arrays: pictures of the shape {images.shape} in {split}; expected [N, H, W], or [N, H, W, C] '
                    'with 1 or 3 channels')
  if images.dtype.kind == 'f' and images.size and 0 <= images.min() and images.max() <= 1:
    images = np.round(images * 255).astype(np.uint8)
  if images.dtype != np.uint8:
    raise UserError(f'arrays: pictures of {images.dtype} in {split}; expected uint8, or floats from 0 to 1')
  return images


def _names(arrays, given):
  """The names of the classes: those given, or else the numbers or names that are labels."""
  every = [(split, labels) for split, (_, labels, _) in arrays.items() if labels is not None]
  for split, labels in every:
    if labels.ndim not in (1, 2) or labels.ndim != every[0][1].ndim:
      raise UserError(f'arrays: labels of the shape {labels.shape} in {split}; expected [N], or [N, C] of 0 and 1 '
                      'where a picture can have several; alike in all splits')
  if given is not None:
    return tuple(map(str, given))
  if every and every[0][1].ndim == 2:
    return tuple(map(str, range(every[0][1].shape[1])))
  flat = np.concatenate([np.zeros(0, int), *(labels for _, labels in every)])
  return tuple(map(str, range(int(flat.max(initial=-1)) + 1) if flat.dtype.kind in 'iu' else np.unique(flat)))


def _several(split, labels, names):
  """uint8 [N, C]."""
  if labels.shape[1] != len(names):
    raise UserError(f'arrays: labels of the shape {labels.shape} in {split}; expected [N, {len(names)}]: a column for '
                    'each class')
  if labels.dtype.kind not in 'iufb' or not np.isin(labels, (0, 1)).all():
    raise UserError(f'arrays: {split} has labels other than 0 and 1; where a picture can have several, [N, C], each is '
                    '0 or 1')
  return labels.astype(np.uint8)


def _numbers(split, labels, names):
  """int32 [N]."""
  if labels.dtype.kind not in 'iu':
    index = {name: i for i, name in enumerate(names)}
    if unknown := sorted({str(label) for label in labels} - index.keys()):
      raise UserError(f'arrays: {split} has the label {unknown[0]!r}, which is none of the classes')
    return np.array([index[str(label)] for label in labels], np.int32)
  if len(labels) and not (labels.min() >= 0 and labels.max() < len(names)):
    raise UserError(f'arrays: {split} has labels from {labels.min()} to {labels.max()}; expected 0 to {len(names) - 1}')
  return labels.astype(np.int32)
