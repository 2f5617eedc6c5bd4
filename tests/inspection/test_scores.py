import numpy as np
import pytest
from sklearn import metrics

from vit_jax.inspection import scores as scores_lib
from vit_jax.inspection.predictions import Predictions, from_probabilities

NAMES = tuple('abcdefgh')


def _random_predictions(seed=0, n=500, labels=None):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 7, n) if labels is None else labels  # none of the last class
  logits = rng.normal(size=(len(labels), 8)) + 1.5 * np.eye(8)[labels]
  probabilities = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)
  return probabilities, labels, from_probabilities(NAMES, probabilities, labels, np.arange(len(labels)))


def test_scores_are_scikit_learns():
  probabilities, labels, rows = _random_predictions()
  scores, every = scores_lib.scores(rows), np.arange(8)
  predicted, top_k = probabilities.argmax(1), metrics.top_k_accuracy_score
  assert scores['examples'] == 500 and scores['accuracy'] == pytest.approx(metrics.accuracy_score(labels, predicted))
  assert scores['balanced_accuracy'] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
  assert scores['accuracy_top5'] == pytest.approx(top_k(labels, probabilities, k=5, labels=every))
  assert scores['loss'] == pytest.approx(metrics.log_loss(labels, probabilities.astype(np.float64), labels=every))
  np.testing.assert_array_equal(scores['confusion'], metrics.confusion_matrix(labels, predicted, labels=every))
  precision, recall, _, n = metrics.precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)
  assert [row['n'] for row in scores['classes']] == list(n) and scores['classes'][7]['recall'] is None
  np.testing.assert_allclose([row['recall'] or 0 for row in scores['classes']], recall)
  np.testing.assert_allclose([row['precision'] or 0 for row in scores['classes']], precision)


def test_what_a_class_is_taken_for_is_the_largest_mistake_of_its_row():
  matrix = np.array(scores_lib.scores(_random_predictions(1)[2])['confusion'])
  mistakes = matrix - np.diag(matrix.diagonal())
  for i, row in enumerate(scores_lib.per_class(_random_predictions(1)[2])):
    assert row['times'] == mistakes[i].max()
    assert (row['taken_for'] is None) == (row['times'] == 0)
    if row['times']:
      assert mistakes[i, NAMES.index(row['taken_for'])] == row['times']


def test_among_equal_probabilities_the_first_counts_as_predicted():
  rows = from_probabilities(NAMES, np.full((8, 8), 0.125, np.float32), np.arange(8), np.arange(8))
  assert list(rows.rank) == list(range(8)) and scores_lib.scores(rows)['accuracy'] == 1 / 8


def test_calibration_by_hand():
  confidence = np.array([0.62, 0.65, 0.95, 1.0], np.float32)
  bins = scores_lib.calibration(confidence, np.array([True, False, True, True]))
  assert [b['n'] for b in bins] == [0] * 9 + [2] + [0] * 4 + [2]
  assert bins[9]['accuracy'] == 0.5 and bins[9]['confidence'] == pytest.approx(0.635)
  assert scores_lib.expected_calibration_error(bins) == pytest.approx((2 * 0.135 + 2 * 0.025) / 4)


def test_the_edge_of_an_interval_belongs_to_the_one_below():
  bins = scores_lib.calibration(np.array([0.2, 0.2000001], np.float64), np.array([True, True]), bins=5)
  assert [b['n'] for b in bins] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize('factor, side', [(1.0, 'well calibrated'), (3.0, 'overconfident'), (0.3, 'underconfident')])
def test_calibration_error_detects_wrong_confidence(factor, side):
  """Labels drawn from the probabilities are calibrated; logits times a factor are not."""
  from vit_jax.inspection.evaluation import confidence_words
  rng = np.random.default_rng(0)
  logits = 2 * rng.normal(size=(20_000, 5))
  softmax = lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)
  labels = (softmax(logits).cumsum(1) > rng.random((20_000, 1))).argmax(1)
  rows = from_probabilities(NAMES[:5], softmax(factor * logits).astype(np.float32), labels, labels)
  scores = scores_lib.scores(rows)
  assert (scores['ece'] < 0.015) == (factor == 1) and confidence_words(scores).startswith(side)
  assert scores['accuracy_top5'] is None
  low, high = scores['accuracy_ci95']
  assert low < scores['accuracy'] < high and high - low == pytest.approx(
      2 * 1.96 * np.sqrt(scores['accuracy'] * scores['error'] / 20_000), rel=1e-2)


def test_a_probability_of_zero_has_a_finite_loss():
  rows = from_probabilities(('a', 'b'), np.array([[1, 0]], np.float32), np.array([1]), np.array([0]))
  assert isinstance(rows, Predictions) and rows.loss[0] == pytest.approx(87.3, abs=0.1)
