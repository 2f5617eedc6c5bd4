"""Temperatures: found where they are known, and never certain for want of mistakes."""

import numpy as np
import pytest

from vit_jax.objectives import calibration


def drawn(n, factor=1.0, classes=5, seed=0):
  """(logits times a factor, labels drawn from the probabilities without it)."""
  rng = np.random.default_rng(seed)
  logits = 2 * rng.standard_normal((n, classes))
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  return (factor * logits).astype(np.float32), (p.cumsum(1) > rng.random((n, 1))).argmax(1)


@pytest.mark.parametrize('factor', [0.2, 1.0, 4.0])
def test_the_temperature_of_logits_that_were_scaled(factor):
  found = calibration.temperature(*drawn(20_000, factor))
  assert found == pytest.approx(factor, rel=0.03)
  before, after = (calibration.gauge(*drawn(20_000, factor, seed=1), t) for t in (1.0, found))
  assert after['ece'] < 0.015 and (before['ece'] > 0.05 or factor == 1)
  assert after['loss'] <= before['loss'] + 1e-3


def test_a_model_without_mistakes_is_not_certain():
  """By the cross-entropy alone the temperature would be 0."""
  labels = np.arange(100) % 3
  logits = np.eye(3, dtype=np.float32)[labels]
  found = calibration.temperature(logits, labels)
  confidence = calibration.gauge(logits, labels, found)['confidence']
  assert confidence == pytest.approx(101 / 102, abs=1e-4)


def test_logits_that_say_nothing_stay_even():
  labels = np.random.default_rng(0).integers(0, 3, 300)
  noise = np.random.default_rng(1).standard_normal((300, 3)).astype(np.float32)
  assert calibration.gauge(noise, labels, calibration.temperature(noise, labels))['confidence'] < 0.4


def test_what_was_before_a_temperature():
  logits, labels = drawn(500, 3.0)
  p = lambda t: np.exp(logits / t) / np.exp(logits / t).sum(1, keepdims=True)
  np.testing.assert_allclose(calibration.plain(p(2.5).astype(np.float32), 2.5), p(1.0), atol=1e-6)
  same = p(1.0).astype(np.float32)
  assert calibration.plain(same, 1.0) is same
  gauged = calibration.gauge(logits, labels)
  right = p(1.0).argmax(1) == labels
  assert gauged['confidence'] == pytest.approx(p(1.0).max(1)[right].mean(), abs=1e-6)
  assert gauged['loss'] == pytest.approx(-np.log(p(1.0)[np.arange(500), labels]).mean(), abs=1e-6)
  assert calibration.gauge(logits[:1], logits[:1].argmin(1))['confidence'] is None
