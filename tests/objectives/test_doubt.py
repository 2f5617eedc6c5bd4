"""The end of a run says where its probabilities cannot be trusted."""

import numpy as np
import pytest

from vit_jax.objectives.classify import Classify, Config, most_loss


@pytest.mark.parametrize('classes', [2, 10])
def test_no_calibrated_probabilities_have_a_higher_loss(classes):
  random = np.random.default_rng(0)
  for sharpness in (0.1, 1.0, 3.0, 10.0):
    logits = sharpness * random.standard_normal((20_000, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    accuracy, loss = p.max(1).mean(), -(p * np.log(p)).sum(1).mean()  # in expectation, of labels drawn from p
    assert loss <= most_loss(accuracy, classes) + 1e-9
  assert most_loss(1.0, classes) == 0 and most_loss(1 / classes, classes) == pytest.approx(np.log(classes))


@pytest.mark.parametrize('accuracy, loss, examples, classes, doubted', [
    (1.0, 1.02, 12, 3, True),  # a head after 27 steps, near chance
    (0.35, 1.09, 12, 3, True), (0.1, 2.30, 360, 10, True), (0.25, 2.0, 360, 10, False),
    (1.0, 0.9, 12, 3, True),  # further from chance, and still too even
    (0.70, 1.46, 10_000, 10, True),  # many epochs of few pictures
    (0.9806, 0.0509, 360, 10, False), (0.9175, 0.24, 10_000, 10, False)])
def test_what_is_doubted(accuracy, loss, examples, classes, doubted):
  scores = {'accuracy': accuracy, 'loss': loss}
  words = Classify(Config()).doubt(scores, examples, classes)
  assert bool(words) == doubted and (not words or f'{loss:.2f}' in words)
  assert not words or ('guessing' in words) == (loss > 0.9 * np.log(classes))
  assert Classify(Config(name='sigmoid')).doubt(scores, examples, classes) == ''
