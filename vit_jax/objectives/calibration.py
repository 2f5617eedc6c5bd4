"""How far probabilities are from how often they are right, and the temperature that brings them nearer."""

from typing import Any

import numpy as np

BINS = 15  # bins of the calibration error, as in Guo et al. 2017, sec. 5
_RANGE = 3.0  # of the logarithm of a temperature: from 1/20 to 20


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
  """Bins predictions by confidence, in `bins` intervals (low, high] of equal width (Guo et al. 2017, eqs. 1 and 2).

  Returns:
    {low, high, n, confidence, accuracy} of each interval. Confidence and accuracy are means; None where n is 0.
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
  """The mean gap between accuracy and confidence over bins, weighted by their counts (Guo et al. 2017, eq. 3)."""
  gaps = sum(b['n'] * abs(b['accuracy'] - b['confidence']) for b in bins if b['n'])
  return gaps / sum(b['n'] for b in bins)


def temperature(logits_NC: np.ndarray, labels_N: np.ndarray) -> float:
  """The number by which logits are divided so that the cross-entropy of the labels is lowest (Guo et al. 2017, eq. 9).

  The target of a label is (n + 1) / (n + 2), as Platt's (1999, sec. 2.2), and the other classes share the rest: n
  pictures without a mistake do not make a model certain. The result is from 1/20 to 20. It changes no decision.
  """
  from scipy import optimize
  n, classes = logits_NC.shape
  logits_NC = logits_NC.astype(np.float64)
  own, rest = logits_NC[np.arange(n), labels_N].mean(), 1 / (n + 2)
  target = (1 - rest) * own + rest * (classes * logits_NC.mean() - own) / (classes - 1)

  def loss(log):
    return _log_sums(logits_NC / np.exp(log)).mean() - target / np.exp(log)

  return float(np.exp(optimize.minimize_scalar(loss, bounds=(-_RANGE, _RANGE), method='bounded',
                                               options={'xatol': 1e-5}).x))


def gauge(logits_NC: np.ndarray, labels_N: np.ndarray, temperature: float = 1.0) -> dict[str, float | None]:
  """{loss, ece, confidence} of logits divided by a temperature.

  `ece` is the calibration error. `confidence` is the mean probability of the classes that are predicted rightly; None
  where none is.
  """
  logits_NC = logits_NC.astype(np.float64) / temperature
  sums_N, right_N = _log_sums(logits_NC), logits_NC.argmax(axis=1) == labels_N
  confidence_N = np.exp(logits_NC.max(axis=1) - sums_N)
  loss = (sums_N - logits_NC[np.arange(len(labels_N)), labels_N]).mean()
  return {'loss': float(loss), 'ece': expected_calibration_error(calibration(confidence_N, right_N)),
          'confidence': float(confidence_N[right_N].mean()) if right_N.any() else None}


def words(found: dict[str, Any]) -> str:
  """What `training.calibrating` found, in words."""
  text = f'temperature {found["temperature"]:.3g}, fitted to {found["examples"]:,} pictures of val'
  if 'test' not in found:
    return text
  before, after = (found['test'][when]['ece'] for when in ('before', 'after'))
  return f'{text}; the calibration error of test is {after:.2%}, and {before:.2%} without it'


def plain(probabilities_NC: np.ndarray, temperature: float) -> np.ndarray:
  """The probabilities before logits were divided by a temperature, from those after it."""
  if temperature == 1:
    return probabilities_NC
  logs_NC = temperature * np.log(np.maximum(probabilities_NC.astype(np.float64), np.finfo(np.float32).tiny))
  return np.exp(logs_NC - _log_sums(logs_NC)[:, None]).astype(np.float32)


def _log_sums(logits_NC):
  most_N = logits_NC.max(axis=1)
  return most_N + np.log(np.exp(logits_NC - most_N[:, None]).sum(axis=1))
