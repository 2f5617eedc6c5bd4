"""Scores of a model whose classes are decided each by itself, as a picture can have several labels, or none."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from vit_jax.data import pipeline
from vit_jax.errors import UserError
from vit_jax.inspection import predictions
from vit_jax.inspection.predictions import Most
from vit_jax.interop.classifier import Classifier, class_indices
from vit_jax.objectives.average_precision import average_precision
from vit_jax.objectives.calibration import calibration, expected_calibration_error
from vit_jax.printable import printable

THRESHOLD = 0.5  # a class is predicted where its probability is above it
MOST_ROWS = 30  # of the printed table
MOST_MISTAKES = 24  # that are kept with their pictures
CALIBRATED = '15 bins, the probabilities of all classes'
_TINY = np.finfo(np.float32).tiny


@dataclasses.dataclass(frozen=True)
class Decisions:
  """Probabilities float32 [n, C] and labels uint8 [n, C] of the n examples that could be read, in the order of a split.
  """
  class_names: tuple[str, ...]
  probabilities: np.ndarray
  labels: np.ndarray
  unreadable: tuple[str, ...] = ()

  def __len__(self) -> int:
    return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Mistake:
  """A wrong decision about a class: the picture, uint8 [H, W, C] as the model saw it, and where that is stored.

  Attributes:
    decided: the class.
    said: whether the class was said; then it is not there, or else it is.
    labels: the classes that are there.
    confidence: the probability of what was decided.
  """
  picture: np.ndarray
  where: str
  decided: int
  said: bool
  labels: tuple[int, ...]
  confidence: float

  def words(self, names: Sequence[str]) -> tuple[str, str]:
    """(what was decided, what is right), such as ('not dog', 'cat, dog')."""
    there = ', '.join(names[i] for i in self.labels) or 'none of the classes'
    return names[self.decided] if self.said else f'not {names[self.decided]}', there


class Gallery:
  """Keeps the pictures of the most confident wrong decisions while a split is read: of each picture, one."""
  right: tuple = ()

  def __init__(self, data: pipeline.Data, split: str, most: int = MOST_MISTAKES):
    self._where, self._kept = lambda place: data.where(split, place), Most(most)

  def see(self, pictures: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, places: np.ndarray) -> None:
    """Takes examples from a batch: pictures [b, H, W, C], probabilities and labels [b, C], places [b]."""
    sure = np.where((probabilities > THRESHOLD) != (labels > 0), np.maximum(probabilities, 1 - probabilities), 0)
    for i in np.flatnonzero(sure.any(axis=1)):
      worst = int(sure[i].argmax())
      self._kept.offer((float(sure[i, worst]), -int(places[i])), lambda i=i, worst=worst: Mistake(
          np.array(pictures[i]), self._where(int(places[i])), worst, bool(probabilities[i, worst] > THRESHOLD),
          tuple(np.flatnonzero(labels[i]).tolist()), float(sure[i, worst])))

  @property
  def mistakes(self) -> list[Mistake]:
    """Those kept, most confident first."""
    return self._kept.items


def of_split(model: Classifier, data: pipeline.Data, split: str, batch_size: int = 64,
             see: Callable = lambda pictures, probabilities, labels, places: None) -> Decisions:
  """The decisions about a whole split; `see` is called for each batch (`Gallery.see`).

  Raises:
    UserError: the split is empty, or no picture of it can be read.
  """
  if not data.size(split):
    raise UserError(f'split {split!r} of {data.name} is empty; give another --split')
  classes, unreadable, found = list(class_indices(model.class_names, data.class_names, 'the model')), [], []
  for places, pictures, labels in predictions.readable(model, data, split, batch_size, unreadable):
    of_model = np.zeros((len(labels), len(model.class_names)), np.uint8)
    of_model[:, classes] = labels
    found.append((model.probabilities(pictures, batch_size), of_model))
    see(pictures, *found[-1], places)
  probabilities, labels = map(np.concatenate, zip(*found))
  if not len(labels):
    raise UserError(f'none of the {data.size(split):,} pictures of split {split!r} could be read: {unreadable[0]}')
  return Decisions(model.class_names, probabilities, labels, tuple(unreadable))


def scores(decisions: Decisions) -> dict[str, Any]:
  """The scores, as in the JSON file.

  Returns:
    A dict with the entries
      several_labels: True.
      examples: the number of examples.
      map, map_error: the mean of the classes' average precision, over classes with examples, and 1 minus it.
      f1: micro-averaged, of what has a probability above `threshold`.
      f1_macro: the mean of the classes' F1, over classes with examples.
      loss: the mean over examples of the sum over classes of binary cross-entropies, in nats.
      calibration, ece: of all n C decisions, the probability against the share of labels; see `objectives.calibration`.
      classes: {class, n, predicted, recall, precision, f1, average_precision} of each; None where it is undefined.
      confusion: None: a class is not taken for another one.
  """
  p, there = decisions.probabilities, decisions.labels > 0
  said = p > THRESHOLD
  hits_C, said_C, there_C = ((x.sum(axis=0)) for x in (said & there, said, there))
  loss = -np.where(there, np.log(np.maximum(p, _TINY)), np.log(np.maximum(1 - p, _TINY))).sum(axis=1, dtype=np.float64)
  precisions, bins = average_precision(p, decisions.labels), calibration(p.ravel(), there.ravel())
  share = lambda part, whole: float(part / whole) if whole else None
  classes = [{'class': name, 'n': int(there_C[i]), 'predicted': int(said_C[i]), 'recall': share(hits_C[i], there_C[i]),
              'precision': share(hits_C[i], said_C[i]), 'f1': share(2 * hits_C[i], said_C[i] + there_C[i]),
              'average_precision': float(precisions[i]) if there_C[i] else None}
             for i, name in enumerate(decisions.class_names)]
  known = there_C > 0
  mean = float(precisions[known].mean()) if known.any() else None
  of_class = 2 * hits_C[known] / (said_C[known] + there_C[known])
  return {'several_labels': True, 'examples': len(decisions), 'threshold': THRESHOLD, 'map': mean,
          'map_error': None if mean is None else 1 - mean,
          'f1': float(2 * hits_C.sum() / max(said_C.sum() + there_C.sum(), 1)),
          'f1_macro': float(of_class.mean()) if known.any() else None, 'loss': float(loss.mean()),
          'ece': expected_calibration_error(bins), 'calibration': bins, 'classes': classes, 'confusion': None}


def words(s: dict[str, Any]) -> list[str]:
  """The scores in a few lines."""
  percent = lambda value: '-' if value is None else f'{value:.2%}'
  return [f'mean average precision {percent(s["map"])}, F1 at {s["threshold"]:g} {percent(s["f1"])} (mean of classes '
          f'{percent(s["f1_macro"])}), loss {s["loss"]:.4f}', f'calibration error {s["ece"]:.2%} ({CALIBRATED})']


def table(rows: list[dict[str, Any]]) -> Table:
  """The classes; with many, those with the lowest average precision."""
  rows = [row for row in rows if row['n'] or row['predicted']]
  rank = lambda row: 2 if row['average_precision'] is None else row['average_precision']
  out = Table(box=box.SIMPLE_HEAD, pad_edge=False)
  for name in ('class', 'n', 'average precision', 'F1', 'recall', 'precision'):
    out.add_column(name, justify='left' if name == 'class' else 'right')
  percent = lambda value: '-' if value is None else f'{value:.1%}'
  for row in sorted(rows, key=rank)[:MOST_ROWS] if len(rows) > MOST_ROWS else rows:
    out.add_row(printable(row['class']), f'{row["n"]:,}', percent(row['average_precision']), percent(row['f1']),
                percent(row['recall']), percent(row['precision']))
  if len(rows) > MOST_ROWS:
    out.caption = f'the {MOST_ROWS} with the lowest average precision of {len(rows):,}; all are in the JSON file'
  return out
