"""Scores of predictions: accuracy with its interval, loss, calibration, per-class scores, and confusions."""

from typing import Any

import numpy as np
from scipy import stats

from vit_jax.inspection.predictions import Predictions
from vit_jax.objectives.calibration import calibration, expected_calibration_error

MOST_CLASSES = 1000  # with more classes, no confusion matrix is written: it would be too large to be of use


def scores(predictions: Predictions) -> dict[str, Any]:
  """The scores of predictions, as in the JSON file.

  Returns:
    A dict with the entries
      examples: the number of examples.
      accuracy, error: shares that sum to 1.
      accuracy_ci95: the 95% Wilson interval of the accuracy, for this number of examples.
      accuracy_top5: None for up to 5 classes.
      balanced_accuracy: the mean recall of the classes that have examples.
      loss: the mean cross-entropy in nats, of the logits as they are.
      ece: the expected calibration error.
      ece_before: the same without the model's temperature; only where it has one.
      mean_confidence: the mean probability of the predicted classes.
      calibration: see `objectives.calibration`.
      classes: see `per_class`.
      confusion: C lists of C counts, indexed by [label][predicted]; None above 1,000 classes.
  """
  n, right = len(predictions), int((predictions.rank == 0).sum())
  bins = calibration(predictions.confidence, predictions.rank == 0)
  before = {} if predictions.before is None else {
      'ece_before': expected_calibration_error(calibration(predictions.before, predictions.rank == 0))}
  interval = stats.binomtest(right, n).proportion_ci(method='wilson')
  classes = per_class(predictions)
  return {
      'examples': n, 'accuracy': right / n, 'accuracy_ci95': [interval.low, interval.high],
      'accuracy_top5': float((predictions.rank < 5).mean()) if len(predictions.class_names) > 5 else None,
      'balanced_accuracy': float(np.mean([row['recall'] for row in classes if row['n']])), 'error': 1 - right / n,
      'loss': float(predictions.loss.mean(dtype=np.float64)), 'ece': expected_calibration_error(bins),
      **before, 'mean_confidence': float(predictions.confidence.mean(dtype=np.float64)), 'calibration': bins,
      'classes': classes,
      'confusion': confusion(predictions).tolist() if len(predictions.class_names) <= MOST_CLASSES else None}


def confusion(predictions: Predictions) -> np.ndarray:
  """The confusion matrix int [C, C]: the number of examples by label (row) and predicted class (column)."""
  classes = len(predictions.class_names)
  pairs = predictions.labels * classes + predictions.predicted
  return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def per_class(predictions: Predictions) -> list[dict[str, Any]]:
  """A dict per class: {class, n, predicted, recall, precision, taken_for, times}.

  `n` counts the examples with this label, `predicted` those predicted as it. `taken_for` is the class that it is most
  often mistaken for, `times` how often. What is undefined is None: recall where n is 0, precision where predicted is 0.
  """
  classes, right = len(predictions.class_names), predictions.labels[predictions.rank == 0]
  there, said, hits = (np.bincount(x, minlength=classes) for x in (predictions.labels, predictions.predicted, right))
  wrong = predictions.rank > 0
  pairs, times = np.unique(np.stack([predictions.labels[wrong], predictions.predicted[wrong]]), axis=1,
                           return_counts=True)
  taken: dict[int, tuple[int, int]] = {}  # {label: (times, predicted)}; among equals, the first
  for (label, predicted), count in zip(pairs.T.tolist(), times.tolist()):
    if count > taken.get(label, (0, 0))[0]:
      taken[label] = count, predicted
  share = lambda part, whole: float(part / whole) if whole else None
  return [{'class': name, 'n': int(there[i]), 'predicted': int(said[i]), 'recall': share(hits[i], there[i]),
           'precision': share(hits[i], said[i]),
           'taken_for': predictions.class_names[taken[i][1]] if i in taken else None, 'times': taken.get(i, (0, 0))[0]}
          for i, name in enumerate(predictions.class_names)]
