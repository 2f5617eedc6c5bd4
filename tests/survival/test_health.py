import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data import device_augment
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.survival import health
from vit_jax.training import branch, state
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib
from vit_jax.training.step import make_train_step

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize('values, said', [((NAN, 1.0), 'loss is nan'), ((1.0, INF), 'gradient norm is inf')])
def test_stop_is_the_default(values, said):
  with pytest.raises(UserError, match=f'the {said} at step 3'):
    health.Watch(health.HealthConfig()).observe(3, *values)


def test_skipped_steps_are_reported_and_too_many_in_a_row_end_the_run():
  watch = health.Watch(health.HealthConfig(on_nonfinite='skip', most_skipped=2))
  for step, in_a_row in ((1, 1), (2, 2)):
    event, = watch.observe(step, NAN, 1.0, health.NOT_FINITE, in_a_row)
    assert (event['event'], event['step'], event['in_a_row']) == ('nonfinite', step, in_a_row)
  assert watch.observe(3, 1.0, 1.0) == []
  assert 'gradient norm is nan' in health.words(*watch.observe(4, 1.0, NAN, health.NOT_FINITE, 1))
  assert 'update of the parameters is not finite' in health.words(*watch.observe(5, 1.0, 1.0, health.NO_UPDATE, 2))
  with pytest.raises(UserError, match='at step 6, and the 2 steps before it were skipped'):
    watch.observe(6, 1.0, NAN, health.NOT_FINITE, 3)


def test_jumps_are_reported_once_and_ordinary_values_are_not():
  watch, rng = health.Watch(health.HealthConfig()), np.random.default_rng(0)
  course = 2.3 * np.exp(-np.arange(400) / 150) * np.exp(rng.normal(0, 0.1, 400)) + 0.1
  assert not any(watch.observe(i, float(loss), 1.0) for i, loss in enumerate(course))
  event, = watch.observe(400, 5.0, 1.0)
  assert event['event'] == 'spike' and event['what'] == 'loss' and event['value'] == 5.0
  assert event['usual'] == pytest.approx(course[-50:].mean(), rel=0.5)
  event, = watch.observe(401, float(course[-1]), 40.0)
  assert event['what'] == 'grad_norm' and 'gradient norm jumps to 40, usually 1' in health.words(event)


def test_a_new_level_is_reported_only_at_first():
  watch = health.Watch(health.HealthConfig())
  reported = [bool(watch.observe(i, 1.0 if i < 200 else 10.0, 1.0)) for i in range(600)]
  assert reported[200] and sum(reported) < 100 and not any(reported[400:])


def test_most_skipped_must_be_positive(tiny_config):
  tiny_config.train.most_skipped = 0
  with pytest.raises(UserError, match='train.most_skipped=0'):
    run_lib.prepare(run_config.cast(tiny_config))


def test_on_nonfinite_is_part_of_the_identity_of_a_trunk(tiny_config):
  tiny_config.schedule.name = 'wsd'
  hashes = []
  for change in ({}, {'steps': 99}, {'on_nonfinite': 'skip'}):
    tiny_config.train.update(change)
    hashes.append(branch.trunk_hash(run_config.cast(tiny_config)))
  assert hashes[0] == hashes[1] != hashes[2]
  assert branch.trunk_config(run_config.cast(tiny_config), 8).train.on_nonfinite == 'skip'


def test_a_skipped_step_changes_nothing_but_the_step_count(tiny_config):
  tiny_config.train.on_nonfinite, tiny_config.optimizer.ema_decay, tiny_config.model.depth = 'skip', 0.9, 1
  run = run_lib.prepare(run_config.cast(tiny_config))
  run = dataclasses.replace(run, mesh=mesh_lib.make_mesh(mesh_lib.MeshConfig(1, 1, 1), jax.devices()[:1]))
  step = jax.jit(mesh_lib.traced_on(run.mesh, make_train_step(run.model, run.config, run.steps,
                                                        device_augment.augment(run.config.data.augment))))
  good = next(iter(run.train_batches(0, lambda errors: None)))
  bad = good | {'weight': good['weight'].at[3].set(jnp.nan)}
  before, metrics = step(state.create(run.model, run.config, run.mesh), good)
  after, bad_metrics = step(before, bad)
  assert math.isfinite(metrics['loss']) and not math.isfinite(bad_metrics['loss'])
  assert int(after.step) == int(before.step) + 1
  counters = {'skipped': 1, 'in_a_row': 1}
  assert {name: float(after.metrics[name]) for name in counters} == counters
  after = after._replace(step=before.step, metrics=after.metrics | {name: before.metrics[name] for name in counters})
  jax.tree.map(np.testing.assert_array_equal, after, before)
  moved, _ = step(before, good)
  assert float(moved.metrics['steps']) == 2
  assert not np.array_equal(moved.params['head']['kernel'], before.params['head']['kernel'])
