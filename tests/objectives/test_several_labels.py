"""Several labels a picture: losses and metrics against scikit-learn and optax, what is refused, a run."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import metrics

import vit_jax
from vit_jax import config, objectives, records
from vit_jax.errors import UserError
from vit_jax.objectives import average_precision, classify
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib
from vit_jax.transfer.distillation import DistillConfig

RNG = np.random.default_rng(0)
LABELS = (RNG.random((100, 4)) < (0.6, 0.3, 0.1, 0.0)).astype(np.uint8)  # nobody has the last class


@pytest.fixture(name='recipe')
def _recipe():
  c = config.defaults('vit')
  c.model.update(dict(patch_size=2, width=8, depth=1, mlp_dim=8, num_heads=2))
  images = np.random.default_rng(1).integers(0, 256, (100, 4, 4, 1), dtype=np.uint8)
  c.data.source, c.data.batch_size, c.loss.name = vit_jax.arrays(images, LABELS), 8, 'sigmoid'
  c.train.steps, c.schedule.warmup_steps = 2, 0
  return c


def prepare(recipe, **changes):
  recipe.update_from_flattened_dict(changes)
  return run_lib.prepare(run_config.cast(recipe))


@pytest.mark.parametrize('decimals', [1, 6], ids=['many equal scores', 'few'])
def test_average_precision_is_that_of_scikit_learn(decimals):
  rng = np.random.default_rng(2)
  labels = (rng.random((300, 5)) < (0.5, 0.1, 0.01, 0.99, 0.3)).astype(np.uint8)
  scores = np.round(rng.normal(size=labels.shape) + labels, decimals).astype(np.float32)
  wanted = metrics.average_precision_score(labels, scores, average=None)
  np.testing.assert_allclose(average_precision.average_precision(scores, labels), wanted, rtol=1e-12)
  assert average_precision.scores(scores, labels)['map'] == pytest.approx(wanted.mean(), rel=1e-12)


def test_a_class_that_no_picture_has_is_no_part_of_the_mean():
  scores = RNG.normal(size=LABELS.shape)
  wanted = metrics.average_precision_score(LABELS[:, :3], scores[:, :3])
  found = average_precision.scores(scores, LABELS)
  assert found == {'map': pytest.approx(wanted), 'map_error': pytest.approx(1 - wanted)}
  assert np.isnan(average_precision.scores(np.where(scores > 1, np.nan, scores), LABELS)['map'])
  assert np.isnan(average_precision.scores(scores, np.zeros_like(LABELS))['map'])


def test_columns_of_a_split_are_those_of_scikit_learn_and_optax(recipe):
  """Rows of weight 0 do not count, whatever is in them."""
  objective = prepare(recipe).objective
  logits = np.float32(RNG.normal(size=LABELS.shape))
  weight = (np.arange(100) % 7 > 0).astype(np.float32)
  batch = {'label': jnp.array(LABELS), 'weight': jnp.array(weight)}
  kept = {name: np.array(array) for name, array in objective.kept({'logits': jnp.array(logits)}, batch).items()}
  kept['logits'][weight == 0], kept['loss'][weight == 0] = np.nan, np.nan
  found, real = objective.score_split(kept | {'weight': weight}), weight > 0
  wanted = {'loss': optax.sigmoid_binary_cross_entropy(logits, LABELS).sum(-1)[real].mean(),
            'f1': metrics.f1_score(LABELS[real], logits[real] > 0, average='micro'),
            'map': metrics.average_precision_score(LABELS[real][:, :3], logits[real][:, :3])}
  assert found == {**{name: pytest.approx(float(value), rel=1e-5) for name, value in wanted.items()},
                   'map_error': pytest.approx(1 - wanted['map'], rel=1e-5)}


def test_smoothing_moves_each_class_towards_one_half(recipe):
  objective = prepare(recipe, **{'loss.label_smoothing': 0.2}).objective
  plain = lambda images, targets, weight: (images, targets)
  batch = {'image': jnp.zeros((2, 4, 4, 1)), 'label': jnp.array(LABELS[:2]), 'weight': jnp.ones(2)}
  targets = objective.prepare(None, batch, plain, None)['targets']
  np.testing.assert_allclose(targets, np.where(LABELS[:2], 0.9, 0.1), rtol=1e-6)


REFUSED = [
    ({'loss.name': 'softmax'}, 'loss.name=softmax: .* set loss.name to sigmoid'),
    ({'loss.class_weights': 'balanced'}, 'loss.class_weights=balanced: weighs pictures by their class'),
    ({'loss.logit_adjustment': 1.0}, 'loss.logit_adjustment=1.0: is for loss.name=softmax'),
    ({'evaluate.probe': 50}, 'evaluate.probe=50: learns one class'),
    ({'evaluate.metric': 'accuracy'}, "evaluate.metric='accuracy': objective=classify on these data"),
]


@pytest.mark.parametrize('changes, message', REFUSED)
def test_what_needs_one_label_is_refused_before_anything_is_compiled(changes, message, recipe):
  with pytest.raises(UserError, match=message):
    prepare(recipe, **changes)


def test_a_teacher_of_one_class_is_refused(recipe):
  distilled = classify.Classify(classify.Config(name='sigmoid'), DistillConfig(teacher='runs/teacher'))
  with pytest.raises(UserError, match='distill.teacher=runs/teacher: gives one class'):
    distilled.for_data(prepare(recipe).data)


def test_an_objective_that_reads_one_label_is_refused(recipe, monkeypatch):
  class Mine(classify.Classify):
    pass

  monkeypatch.setitem(objectives.OBJECTIVES, 'mine', Mine)
  recipe.objective = 'mine'
  with pytest.raises(UserError, match=r"the 'label' of a picture has the shape \(4,\), and the objective reads \(\)"):
    prepare(recipe, **{'loss.name': 'sigmoid'})


def test_one_label_a_picture_has_no_metrics_of_several(recipe):
  images = np.random.default_rng(1).integers(0, 256, (100, 4, 4, 1), dtype=np.uint8)
  changes = {'data.source': vit_jax.arrays(images, LABELS[:, 0].astype(int))}
  assert type(prepare(recipe, **changes).objective) is classify.Classify
  with pytest.raises(UserError, match="evaluate.metric='map': objective=classify on these data has no such metric"):
    prepare(recipe, **changes, **{'evaluate.metric': 'map'})


@pytest.mark.slow
def test_a_run_stops_early_by_the_mean_average_precision(recipe, tmp_path):
  recipe.update_from_flattened_dict({
      'evaluate.metric': 'map', 'evaluate.patience': 2, 'evaluate.every': 1, 'train.steps': 12,
      'data.augment.mixup': 0.4, 'optimizer.learning_rate': 0.03})
  run = vit_jax.train(recipe, tmp_path / 'run', quiet=True)
  rows = [row for row in records.read_rows(tmp_path / 'run' / 'metrics.jsonl') if row['split'] == 'val']
  assert rows[run.results['step'] - 1]['map'] == max(row['map'] for row in rows)
  assert run.results['val']['map_error'] == pytest.approx(1 - max(row['map'] for row in rows))
  assert 'accuracy' not in rows[0] and 0 <= run.results['test']['f1'] <= 1
