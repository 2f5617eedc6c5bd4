"""Scores of predictions: accuracy with its interval, loss, calibration, each class, and what is taken for what."""

from typing import Any

import numpy as np
from scipy import stats

from vit_jax.inspection.predictions import Predictions

BINS = 15  # of the calibration error, as in Guo et al. 2017, sec. 5
MOST_CLASSES = 1000  # beyond these a table of classes by classes is of no use to anybody


def scores(told: Predictions) -> dict[str, Any]:
  """What the JSON file holds.

  Returns:
    examples, accuracy, accuracy_ci95 (Wilson's interval: the noise of so many examples), accuracy_top5 (None for up to
    5 classes), error, loss, ece, mean_confidence, calibration (see `calibration`), classes [{class, n, predicted,
    recall, precision, taken_for, times}], and confusion, C lists of C counts by [label][predicted], None above 1,000
    classes. What is undefined is None: recall where n is 0, precision where nothing was predicted.
  """
  n, right = len(told), int((told.rank == 0).sum())
  bins = calibration(told.confidence, told.rank == 0)
  interval = stats.binomtest(right, n).proportion_ci(method='wilson')
  return {
      'examples': n, 'accuracy': right / n, 'accuracy_ci95': [interval.low, interval.high],
      'accuracy_top5': float((told.rank < 5).mean()) if len(told.class_names) > 5 else None, 'error': 1 - right / n,
      'loss': float(told.loss.mean(dtype=np.float64)), 'ece': expected_calibration_error(bins),
      'mean_confidence': float(told.confidence.mean(dtype=np.float64)), 'calibration': bins,
      'classes': per_class(told),
      'confusion': confusion(told).tolist() if len(told.class_names) <= MOST_CLASSES else None}


def confusion(told: Predictions) -> np.ndarray:
  """int [C, C]: how many examples of each class (row) were taken for each class (column)."""
  classes = len(told.class_names)
  return np.bincount(told.labels * classes + told.predicted, minlength=classes**2).reshape(classes, classes)


def per_class(told: Predictions) -> list[dict[str, Any]]:
  """A row a class, with the class that it is most often taken for by mistake, and how often."""
  classes, right = len(told.class_names), told.labels[told.rank == 0]
  there, said, hits = (np.bincount(x, minlength=classes) for x in (told.labels, told.predicted, right))
  wrong = told.rank > 0
  pairs, times = np.unique(np.stack([told.labels[wrong], told.predicted[wrong]]), axis=1, return_counts=True)
  taken: dict[int, tuple[int, int]] = {}  # {label: (times, predicted)}, of equals the first
  for (label, predicted), count in zip(pairs.T.tolist(), times.tolist()):
    if count > taken.get(label, (0, 0))[0]:
      taken[label] = count, predicted
  share = lambda part, whole: float(part / whole) if whole else None
  return [{'class': name, 'n': int(there[i]), 'predicted': int(said[i]), 'recall': share(hits[i], there[i]),
           'precision': share(hits[i], said[i]),
           'taken_for': told.class_names[taken[i][1]] if i in taken else None, 'times': taken.get(i, (0, 0))[0]}
          for i, name in enumerate(told.class_names)]


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
  """Predictions by their confidence, in `bins` intervals (low, high] of equal width (Guo et al. 2017, eqs. 1 and 2).

  Returns:
    {low, high, n, confidence, accuracy} of each interval, with means that are None where n is 0.
  """
  which = np.clip(np.ceil(confidence.astype(np.float64) * bins).astype(int) - 1, 0, bins - 1)
  out = []
  for i in range(bins):
    chosen = which == i
    n = int(chosen.sum())
    mean = lambda x, chosen=chosen, n=n: float(x[chosen].mean(dtype=np.float64)) if n else None
    out.append({'low': i / bins, 'high': (i + 1) / bins, 'n': n, 'confidence': mean(confidence),
                'accuracy': mean(right)})
  return out


def expected_calibration_error(bins: list[dict[str, Any]]) -> float:
  """The mean distance of accuracy and confidence over all examples, by intervals (Guo et al. 2017, eq. 3)."""
  gaps = sum(b['n'] * abs(b['accuracy'] - b['confidence']) for b in bins if b['n'])
  return gaps / sum(b['n'] for b in bins)
