"""Losses of classification, with one value per example."""

import jax
import jax.numpy as jnp
import optax


def targets(labels_B: jax.Array, num_classes: int, label_smoothing: float) -> jax.Array:
  """One-hot targets float32 [B, C] of numbers of classes, with label smoothing; each row sums to 1."""
  one_hot_BC = jax.nn.one_hot(labels_B, num_classes, dtype=jnp.float32)
  return one_hot_BC * (1 - label_smoothing) + label_smoothing / num_classes


def several_targets(labels_BC: jax.Array, label_smoothing: float) -> jax.Array:
  """Targets float32 [B, C] of 0 and 1 for each class, moved towards 1/2 by label smoothing (as Keras does)."""
  return labels_BC.astype(jnp.float32) * (1 - label_smoothing) + label_smoothing / 2


def per_example(name: str, logits_BC: jax.Array, targets_BC: jax.Array) -> jax.Array:
  """The loss of each example, float32 [B].

  'softmax' is cross-entropy; 'sigmoid' is the sum over classes of binary cross-entropies (Beyer et al. 2020).
  """
  logits_BC = logits_BC.astype(jnp.float32)
  if name == 'sigmoid':
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits_BC, targets_BC), axis=-1)
  return optax.softmax_cross_entropy(logits_BC, targets_BC)
