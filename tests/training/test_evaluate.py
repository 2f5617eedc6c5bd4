import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data import device_augment
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.objectives import classify
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import calibrating, evaluate, loop, probing, state
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib
from vit_jax.training.evaluate import EvaluateConfig
from vit_jax.training.trained import Trained


@pytest.mark.parametrize('devices, batch_size', [(8, 8), (8, 64), (8, 360), (8, 1000), (1, 64), (4, 100)])
def test_every_example_counts_once_on_any_batch_size_and_device_count(tiny_config, devices, batch_size):
  """Compared with a direct computation over the split, with batch sizes that do or do not divide 360."""
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(devices, 1, 1), jax.devices()[:devices])
  run = dataclasses.replace(run_lib.prepare(run_config.cast(tiny_config)), mesh=mesh)
  run = dataclasses.replace(run, config=dataclasses.replace(
      run.config, evaluate=dataclasses.replace(run.config.evaluate, batch_size=batch_size)))
  params = state.create(run.model, run.config, run.mesh).params
  params['head']['kernel'] = jax.random.normal(jax.random.key(0), params['head']['kernel'].shape)
  eval_step = jax.jit(evaluate.make_eval_step(run.model, device_augment.normalize))
  scores = evaluate.evaluate(eval_step, run.objective, params, {}, run.eval_batches('test', lambda errors: None))

  images, labels = run.data.arrays('test').values()
  assert len(images) == run.data.size('test') and len(images) % 7
  logits = run.model.apply(jax.device_get(params), {}, device_augment.normalize(jnp.asarray(images)))[0]
  loss = -jax.nn.log_softmax(logits)[np.arange(len(labels)), labels].mean()
  assert scores['loss'] == pytest.approx(float(loss), rel=1e-5)
  assert scores['accuracy'] == pytest.approx(float((logits.argmax(-1) == labels).mean()), abs=1e-9)
  assert scores['accuracy'] + scores['error'] == 1


@pytest.mark.parametrize('which', ['evaluation', 'features', 'calibration', 'prediction'])
def test_on_a_tpu_no_forward_pass_writes_logits_of_all_pairs_of_tokens(tiny_config, which):
  """They are traced as the training step is, so that a kernel computes attention."""
  tiny_config.model.patch_size, tiny_config.model.dtype = 2, 'bfloat16'
  run = run_lib.prepare(run_config.cast(tiny_config))
  of, (params, stats) = (run.model, run.config.data, run.mesh), run.model.init(jax.random.key(0))
  batch = next(run.data.train_batches(0, 0, 1))
  trained = Trained(class_names=(), preprocessing=Preprocessing((8, 8)), model=run.model, params=params, stats=stats)
  forward = {'evaluation': lambda: loop._eval_step(*of), 'features': lambda: probing._forward(*of),
             'calibration': lambda: calibrating._forward(*of), 'prediction': lambda: trained._forward}[which]()
  more = (batch, 0) if which == 'evaluation' else (batch['image'],)
  of_pairs = re.compile(r'\[32,8,16,16\]')  # [B, H, T, T]
  text = lambda: str(jax.make_jaxpr(forward)(params, stats, *more))
  assert of_pairs.search(text())  # by the compiler, on this machine
  with mesh_lib.tracing_for('tpu'):
    text = text()
  assert text.count('pallas_call') >= tiny_config.model.depth and not of_pairs.search(text)


METRICS = classify.OBJECTIVE.metrics


def _rows(*losses):
  return [{'step': i, 'loss': loss, 'accuracy': 1 - (loss or 0)} for i, loss in enumerate(losses, 1)]


def test_patience_counts_evaluations_without_a_better_one():
  config = EvaluateConfig(patience=2)
  assert not evaluate.out_of_patience(_rows(3, 2, 2.5), config, METRICS)
  assert evaluate.out_of_patience(_rows(3, 2, 2.5, 2), config, METRICS)
  assert not evaluate.out_of_patience(_rows(3, 2, 2.5, 1.9), config, METRICS)
  assert not evaluate.out_of_patience(_rows(1, 2, 3, 4), EvaluateConfig(patience=0), METRICS)


def test_the_best_row_has_the_best_metric_and_is_never_nan():
  assert evaluate.best_row(_rows(3, 1, 2), 'loss', METRICS)['step'] == 2
  assert evaluate.best_row(_rows(0.9, 0.1, 0.5), 'accuracy', METRICS)['step'] == 2
  assert evaluate.best_row(_rows(None, 2, None), 'loss', METRICS)['step'] == 2
