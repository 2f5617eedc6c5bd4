"""How well scores rank the pictures that have a class before those that have not, over a whole split."""

import numpy as np

from vit_jax.objectives.objective import Metric

METRICS = {'map': Metric(higher_is_better=True, share=True), 'map_error': Metric(share=True, shown=False)}


def average_precision(scores_NC: np.ndarray, labels_NC: np.ndarray) -> np.ndarray:
  """The average precision of each class, float64 [C]; nan for a class that no picture has.

  It is the sum over thresholds of (recall - recall at the threshold above) x precision, without interpolation, and
  equal scores are one threshold: the definition of scikit-learn's average_precision_score.

  Args:
    scores_NC: the larger, the more probable. A score that is not a number makes that of its class nan.
    labels_NC: 0 or 1.
  """
  return np.array([_of_class(scores_N, labels_N > 0) for scores_N, labels_N in zip(scores_NC.T, labels_NC.T)])


def _of_class(scores_N, there_N):
  if not there_N.any() or np.isnan(scores_N).any():
    return np.nan
  order = np.argsort(-scores_N, kind='stable')
  scores_N, hits_N = scores_N[order], np.cumsum(there_N[order])
  last = np.flatnonzero(np.append(scores_N[1:] != scores_N[:-1], True))  # of each threshold
  hits = hits_N[last]
  return float(np.sum(np.diff(hits, prepend=0) * (hits / (last + 1))) / hits[-1])


def scores(scores_NC: np.ndarray, labels_NC: np.ndarray) -> dict[str, float]:
  """'map', the mean of `average_precision` over the classes that some picture has, and 'map_error', 1 minus that."""
  there_C = labels_NC.any(axis=0)
  mean = float(np.mean(average_precision(scores_NC[:, there_C], labels_NC[:, there_C]))) if there_C.any() else np.nan
  return {'map': mean, 'map_error': 1 - mean}
