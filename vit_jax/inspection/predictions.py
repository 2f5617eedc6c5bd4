"""Predictions of a model on every example of a split, each scored once."""

import contextlib
import dataclasses
import heapq
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from vit_jax.data import pipeline
from vit_jax.data.config import DataConfig
from vit_jax.errors import UserError
from vit_jax.interop.classifier import Classifier, class_indices
from vit_jax.objectives import calibration

_TINY = np.finfo(np.float32).tiny  # lower bound on probabilities: the loss is at most 87.3


@dataclasses.dataclass(frozen=True)
class Predictions:
  """Predictions on n examples, in the order of the split. Classes are indices into the model's classes.

  Attributes:
    class_names: the C class names of the model.
    places: int [n], the position of each example in the split. Pictures that could not be read are missing.
    labels: int [n], the true classes.
    predicted: int [n], the predicted classes.
    confidence: float32 [n], the probability of the predicted class.
    rank: int [n], how many classes were ranked above the label; 0 where the prediction is right.
    loss: float32 [n], cross-entropy in nats, of the logits as they are. It is at most 87.3, minus the logarithm of the
      smallest normal float32; times the temperature, where the model has one.
    unreadable: error messages of the pictures that could not be read.
    before: float32 [n], the confidence without the model's temperature; None: it has none.
  """
  class_names: tuple[str, ...]
  places: np.ndarray
  labels: np.ndarray
  predicted: np.ndarray
  confidence: np.ndarray
  rank: np.ndarray
  loss: np.ndarray
  unreadable: tuple[str, ...] = ()
  before: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Example:
  """One example: its picture, uint8 [H, W, C] as the model saw it, where that is stored, and the prediction."""
  picture: np.ndarray
  where: str
  label: int
  predicted: int
  confidence: float

  def words(self, names: Sequence[str]) -> tuple[str, str]:
    """The names of the predicted class and of the label."""
    return names[self.predicted], names[self.label]


def open_data(model: Classifier, config: DataConfig) -> pipeline.Data:
  """Opens a data set with pictures of the model's size and channels.

  Raises:
    UserError: the data is not found, or has a class that the model does not know.
  """
  prepare = model.preprocessing
  config = dataclasses.replace(config, image_size=prepare.size, channels=prepare.channels)
  data = pipeline.open_data(config, to_train=False)
  class_indices(model.class_names, data.class_names, 'the model')
  return data


def of_split(model: Classifier, data: pipeline.Data, split: str, batch_size: int = 64,
             progress: Callable[[str], None] = lambda text: None, see: Callable = lambda pictures, rows: None
             ) -> Predictions:
  """Predicts a whole split.

  Args:
    model: the model.
    data: the data set, from `open_data`.
    split: the name of the split.
    batch_size: pictures per batch.
    progress: called with a line of text that says what is done and how many seconds are left.
    see: called for each batch with its pictures uint8 [b, H, W, C] and their Predictions.

  Raises:
    UserError: the split is empty, a picture cannot be read and data.on_error is 'stop', or none can be read.
  """
  size, parts = data.size(split), []
  if not size:
    raise UserError(f'split {split!r} of {data.name} is empty; give another --split')
  classes, unreadable = np.array(class_indices(model.class_names, data.class_names, 'the model')), []
  for places, pictures, labels in readable(model, data, split, batch_size, unreadable):
    probabilities = model.probabilities(pictures, batch_size)
    part = from_probabilities(model.class_names, probabilities, classes[labels], places)
    if model.temperature != 1:
      plain = calibration.plain(probabilities, model.temperature)
      part = dataclasses.replace(part, before=plain.max(axis=1, initial=0.0), loss=from_probabilities(
          model.class_names, plain, classes[labels], places).loss)
    parts.append(part)
    see(pictures, parts[-1])
    if len(parts) == 1:
      began = time.perf_counter()  # not counting the first batch, which includes compilation
    left = (time.perf_counter() - began) * max(size / batch_size - len(parts), 0) / max(len(parts) - 1, 1)
    progress(f'scoring {size:,} pictures of {split}, about {left:.0f} s')
  if not any(map(len, parts)):
    raise UserError(f'none of the {size:,} pictures of split {split!r} could be read: {unreadable[0]}')
  join = lambda name: np.concatenate([getattr(part, name) for part in parts])
  names = ('places', 'labels', 'predicted', 'confidence', 'rank', 'loss')
  return Predictions(model.class_names, *map(join, names), tuple(unreadable),
                     join('before') if model.temperature != 1 else None)


class Most:
  """Keeps the items with the highest keys of many that are offered."""

  def __init__(self, most: int):
    self._heap: list[tuple] = []
    self._most = most

  def offer(self, key: tuple, make: Callable[[], Any]) -> None:
    """Keeps the item that `make` returns, where its key is among the highest. Keys must differ."""
    if len(self._heap) < self._most:
      heapq.heappush(self._heap, (key, make()))
    elif key > self._heap[0][0]:
      heapq.heapreplace(self._heap, (key, make()))

  @property
  def items(self) -> list[Any]:
    """What is kept, the highest key first."""
    return [item for _, item in sorted(self._heap, key=lambda pair: pair[0], reverse=True)]


class Gallery:
  """Keeps a few examples while a split is read: the most confident mistakes, and one correct answer per class."""

  def __init__(self, data: pipeline.Data, split: str, mistakes: int = 24, right: int = 10):
    self._where, self._classes = lambda place: data.where(split, place), right
    self._kept = Most(mistakes)
    self._right: dict[int, Example] = {}

  def see(self, pictures: np.ndarray, rows: Predictions) -> None:
    """Takes examples from a batch; pass it to `of_split` as `see`."""
    for i in np.flatnonzero(rows.rank > 0):
      self._kept.offer((float(rows.confidence[i]), -int(rows.places[i])), lambda i=i: self._example(pictures, rows, i))
    for i in np.flatnonzero(rows.rank == 0):
      if len(self._right) < self._classes and int(rows.labels[i]) not in self._right:
        self._right[int(rows.labels[i])] = self._example(pictures, rows, i)

  def _example(self, pictures, rows, i):
    return Example(np.array(pictures[i]), self._where(int(rows.places[i])), int(rows.labels[i]),
                   int(rows.predicted[i]), float(rows.confidence[i]))

  @property
  def mistakes(self) -> list[Example]:
    """The mistakes kept, most confident first."""
    return self._kept.items

  @property
  def right(self) -> list[Example]:
    """The first correct answer of each of several classes, in class order."""
    return [self._right[label] for label in sorted(self._right)]


def readable(model, data, split, batch_size, unreadable) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Yields (places, pictures, labels) of each batch, without padding and without pictures that could not be read.

  Messages on the latter are added to the list `unreadable`.
  """
  first = 0
  with contextlib.closing(data.eval_batches(split, batch_size, frame=model.preprocessing.frame)) as batches:
    for batch in batches:
      unreadable += batches.take_errors()
      good = np.flatnonzero(batch['weight'] > 0)
      yield first + good, batch['image'][good], batch['label'][good]
      first += batch_size


def from_probabilities(class_names: tuple[str, ...], probabilities: np.ndarray, labels: np.ndarray,
                       places: np.ndarray) -> Predictions:
  """The Predictions that follow from probabilities [n, C], for examples with `labels` [n] at `places` [n]."""
  of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)
  predicted = probabilities.argmax(axis=1)
  earlier = np.arange(probabilities.shape[1])[None] < labels[:, None]  # among equals, the first counts as predicted
  rank = ((probabilities > of_label) | ((probabilities == of_label) & earlier)).sum(axis=1)
  return Predictions(class_names, places, labels, predicted, probabilities.max(axis=1, initial=0.0), rank,
                     -np.log(np.maximum(of_label[:, 0], _TINY)))
