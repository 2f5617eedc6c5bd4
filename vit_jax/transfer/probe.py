"""Evaluation of features by k nearest neighbours and a linear probe (scikit-learn's)."""

import dataclasses
import warnings

import numpy as np

from vit_jax.errors import UserError

NEIGHBOURS, TEMPERATURE = 20, 0.07  # Caron et al. 2021 (DINO), sec. 4.1; the vote of Wu et al. 2018, sec. 3.4
STRENGTHS = tuple(10.0**power for power in range(-4, 3))  # the inverse penalty
ENOUGH = 200  # pictures of `val` from which it chooses the penalty alone
_FOLDS = 5
_UNSEEN = -30.0  # the logit of a class without any readable picture


@dataclasses.dataclass(frozen=True)
class Features:
  """Features [n, D] and labels [n] of the readable pictures of a split."""
  features: np.ndarray
  labels: np.ndarray


def neighbours(train: Features, queries_QD: np.ndarray, num_classes: int) -> np.ndarray:
  """The class [Q] of each query by a weighted vote of its nearest pictures, with weights exp(cosine / temperature).

  k is 20, or all pictures if there are fewer (Wu et al. 2018, sec. 3.4; Caron et al. 2021, appendix F.1).
  """
  unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
  train_ND, out = unit(train.features), []
  k = min(NEIGHBOURS, len(train_ND))
  one_hot_NC = np.eye(num_classes, dtype=np.float32)[train.labels]
  for start in range(0, len(queries_QD), 1024):
    cosine_QN = unit(queries_QD[start:start + 1024]) @ train_ND.T
    nearest_QK = np.argpartition(-cosine_QN, k - 1, axis=1)[:, :k]
    votes_QK = np.exp((np.take_along_axis(cosine_QN, nearest_QK, 1) - 1) / TEMPERATURE)
    out.append(np.einsum('qk,qkc->qc', votes_QK, one_hot_NC[nearest_QK]).argmax(1))
  return np.concatenate(out)


def linear(train: Features, val: Features | None, num_classes: int) -> tuple[np.ndarray, np.ndarray, float, float]:
  """Multinomial logistic regression on standardised features: (kernel [D, C], bias [C], strength, accuracy on val).

  The penalty is the one with the lowest loss, so that its probabilities mean something: accuracy on a few pictures is
  the same for many penalties, and the strongest of these leaves all classes nearly equal. The loss is that on `val`;
  with fewer than 200 pictures in it, that of 5-fold cross-validation on `train` is added. The standardisation is folded
  into the head, which applies to the original features.

  Raises:
    UserError: pictures of only one class could be read.
  """
  from sklearn import exceptions  # takes seconds to import
  from sklearn.linear_model import LogisticRegression
  mean, std = train.features.mean(0), np.maximum(train.features.std(0), 1e-6)
  scaled = (train.features - mean) / std
  if len(np.unique(train.labels)) < 2:
    raise UserError('linear probe: only pictures of one class could be read; expected two or more classes')

  def fit(strength, rows):
    with warnings.catch_warnings():  # where a weak penalty does not converge, a stronger one is chosen or near enough
      warnings.simplefilter('ignore', exceptions.ConvergenceWarning)
      return _head(LogisticRegression(C=strength, max_iter=500).fit(scaled[rows], train.labels[rows]), num_classes)

  folds = _folds(train.labels) if val is None or len(val.labels) < ENOUGH else ()
  best = None
  for strength in STRENGTHS:
    kernel, bias = fit(strength, slice(None))
    losses = [] if val is None else [_losses((val.features - mean) / std, val.labels, kernel, bias)]
    losses += [_losses(scaled[rows], train.labels[rows], *fit(strength, ~rows)) for rows in folds]
    loss = float(np.mean(np.concatenate(losses))) if losses else abs(np.log(strength))  # nothing to choose by: 1
    if best is None or loss < best[0]:
      best = loss, kernel / std[:, None], bias, strength
  _, kernel, bias, strength = best
  bias = bias - mean @ kernel
  accuracy = float('nan') if val is None else float(((val.features @ kernel + bias).argmax(1) == val.labels).mean())
  return kernel.astype(np.float32), bias.astype(np.float32), strength, accuracy


def _folds(labels):
  """Masks [N] of the folds, each with a part of each class, but not those that would leave out a whole class."""
  place = np.empty(len(labels), int)
  for label in np.unique(labels):
    own = np.flatnonzero(labels == label)
    place[own] = np.arange(len(own)) % _FOLDS
  masks = [place == fold for fold in range(_FOLDS)]
  return [mask for mask in masks if mask.any() and len(np.unique(labels[~mask])) == len(np.unique(labels))]


def _losses(features_ND, labels, kernel, bias):
  """The cross-entropy of each picture, [N]."""
  logits = features_ND @ kernel + bias
  logits = logits - logits.max(1, keepdims=True)
  return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


def _head(fitted, num_classes):
  coefficients, intercept = fitted.coef_.T, fitted.intercept_
  if len(fitted.classes_) == 2:  # one logit for the second class
    coefficients, intercept = (np.concatenate([-x / 2, x / 2], axis=-1) for x in (coefficients, intercept))
  kernel, bias = np.zeros((len(coefficients), num_classes)), np.full(num_classes, _UNSEEN)
  kernel[:, fitted.classes_], bias[fitted.classes_] = coefficients, intercept
  return kernel, bias
