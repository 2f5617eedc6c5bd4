"""Classes of unequal sizes: weights of classes (loss.class_weights) and logit adjustment."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vit_jax
from vit_jax import config
from vit_jax.errors import UserError
from vit_jax.objectives import classify
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib

LABELS = np.repeat([0, 1, 2], [60, 30, 10])


@pytest.fixture(name='recipe')
def _recipe():
  """Pictures of three classes, six, three and one of ten."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (100, 4, 4, 1), dtype=np.uint8)
  c = config.defaults('vit')
  c.model.update(dict(patch_size=2, width=8, depth=1, mlp_dim=8, num_heads=2))
  c.data.source, c.data.batch_size, c.data.val_examples = vit_jax.arrays(images, LABELS), 8, 0
  c.train.steps = 2
  return c


def losses(recipe, **loss):
  recipe.loss.update(loss)
  run = run_lib.prepare(run_config.cast(recipe))
  labels = jnp.array([0, 1, 2, 2])
  logits = jnp.array(np.random.default_rng(1).normal(size=(4, 3)), jnp.float32)
  batch = {'targets': jax.nn.one_hot(labels, 3), 'label': labels}
  return (np.asarray(run.objective.loss({'logits': logits}, batch)['loss']),
          np.asarray(run.objective.score({'logits': logits}, batch)['loss']), np.asarray(logits), run)


def shares_of(run):
  """The class shares of the training pictures, which test pictures may have been taken out of."""
  return np.bincount(run.data.labels('train')) / run.data.size('train')


def test_balanced_weights_are_the_inverse_shares_and_one_on_average(recipe):
  plain, scored, _, _ = losses(recipe)
  weighted, scored_too, _, run = losses(recipe, class_weights='balanced')
  shares = shares_of(run)
  np.testing.assert_allclose(weighted, plain / (3 * shares[[0, 1, 2, 2]]), rtol=1e-6)
  assert np.sum(shares / (3 * shares)) == pytest.approx(1)
  np.testing.assert_array_equal(scored, scored_too)  # evaluation is plain cross-entropy


def test_adjusted_logits_are_those_with_the_log_of_the_shares(recipe):
  adjusted, _, logits, run = losses(recipe, logit_adjustment=1.5)
  moved = logits + 1.5 * np.log(shares_of(run))
  expected = np.log(np.exp(moved).sum(1)) - moved[np.arange(4), [0, 1, 2, 2]]
  np.testing.assert_allclose(adjusted, expected, rtol=1e-5)


def test_without_them_the_objective_does_not_depend_on_the_data(recipe):
  assert losses(recipe)[3].objective == classify.Classify(classify.Config())


def test_only_a_softmax_is_adjusted(recipe):
  with pytest.raises(UserError, match='loss.logit_adjustment=1.0: is for loss.name=softmax, not for sigmoid'):
    losses(recipe, logit_adjustment=1.0, name='sigmoid')


def test_a_class_without_pictures_is_named():
  class Empty:
    class_names, num_classes, several_labels = ('cat', 'dog'), 2, False

    def labels(self, split):
      return np.zeros(5, int)

  with pytest.raises(UserError, match="loss.class_weights=balanced: class 'dog' has no training pictures"):
    classify.Classify(classify.Config(class_weights='balanced')).for_data(Empty())


@pytest.mark.slow
def test_a_run_with_both_trains(recipe, tmp_path):
  recipe.loss.update(dict(class_weights='balanced', logit_adjustment=1.0))
  assert np.isfinite(vit_jax.train(recipe, tmp_path / 'run').results['test']['loss'])
