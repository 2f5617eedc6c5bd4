"""The linear probe of few pictures: probabilities that mean something, whatever `val` is."""

import warnings

import numpy as np
import pytest

from vit_jax.transfer import probe
from vit_jax.transfer.probe import Features


def clusters(n, classes=3, width=384, apart=1.0, seed=0):
  """Features of n pictures around one centre a class, which are the same for every seed."""
  centres = np.random.default_rng(7).standard_normal((classes, width)) * apart
  rng = np.random.default_rng(seed)
  labels = np.arange(n) % classes
  return Features((centres[labels] + rng.standard_normal((n, width))).astype(np.float32), labels)


def confidence(found, features):
  kernel, bias = found[:2]
  logits = features.features @ kernel + bias
  p = np.exp(logits - logits.max(1, keepdims=True))
  p /= p.sum(1, keepdims=True)
  right = p.argmax(1) == features.labels
  return right.mean(), p.max(1)[right].mean(), p


@pytest.mark.parametrize('val', [clusters(6, seed=1), clusters(2, seed=1), None])
def test_sixty_pictures_in_three_classes(val):
  """By accuracy alone the strongest penalty wins among equals, and all three classes stay near 1/3."""
  accuracy, sure, _ = confidence(probe.linear(clusters(48), val, 3), clusters(300, seed=2))
  assert accuracy > 0.99 and sure > 0.8


def test_no_confidence_where_there_is_nothing_to_learn():
  found = probe.linear(clusters(48, apart=0), clusters(6, apart=0, seed=1), 3)
  accuracy, _, p = confidence(found, clusters(3_000, apart=0, seed=2))
  assert p.max(1).mean() < 0.5 and abs(accuracy - 1 / 3) < 0.05


def test_a_large_val_chooses_alone():
  """It has other labels than train: only a penalty that learns nothing is right about that."""
  train, val = clusters(60), clusters(probe.ENOUGH, seed=1)
  shuffled = Features(val.features, np.roll(val.labels, 1))
  assert probe.linear(train, shuffled, 3)[2] == min(probe.STRENGTHS) < probe.linear(train, val, 3)[2]


def test_a_class_with_one_picture():
  train = clusters(31)
  labels = np.where(np.arange(31) == 30, 3, train.labels)
  kernel, bias, *_ = probe.linear(Features(train.features, labels), None, 5)
  assert kernel.shape == (384, 5) and np.isfinite(kernel).all() and bias[4] == pytest.approx(-30, abs=20)


def test_a_penalty_that_does_not_converge_is_nothing_for_the_user(monkeypatch):
  monkeypatch.setattr(probe, 'STRENGTHS', (1e6,))
  rng = np.random.default_rng(0)
  turn = np.diag(np.geomspace(1, 1e-4, 8)) @ np.linalg.qr(rng.standard_normal((8, 8)))[0]
  features = lambda n: Features((rng.standard_normal((n, 8)) @ turn).astype(np.float32), rng.integers(0, 3, n))
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    assert np.isfinite(probe.linear(features(60), features(probe.ENOUGH), 3)[0]).all()
