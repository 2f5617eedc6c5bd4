"""The result of a step does not depend on how it is executed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import config
from vit_jax.data import device_augment
from vit_jax.models import PureModel, swin
from vit_jax.optimisation import losses
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training import config as run_config
from vit_jax.training import microbatches, state
from vit_jax.training import run as run_lib
from vit_jax.training import step as step_lib


def _run(recipe, sizes):
  """A run on a mesh of the first devices."""
  run = run_lib.prepare(run_config.cast(recipe))
  mesh = make_mesh(MeshConfig(*sizes), jax.devices()[:int(np.prod(sizes))])
  return dataclasses.replace(run, mesh=mesh)


def _jitted(run):
  step = step_lib.make_train_step(run.model, run.resolved, run.steps, device_augment.augment(run.config.data.augment))
  return jax.jit(mesh_lib.traced_on(run.mesh, step))


def _randomised(run):
  """The initial state with random parameters, as a zero head would hide the backbone."""
  train_state = state.create(run.model, run.config, run.mesh)
  leaves, tree = jax.tree.flatten(train_state.params)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  random = [0.2 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)]
  params = jax.tree.unflatten(tree, [jax.device_put(r, leaf.sharding) for r, leaf in zip(random, leaves)])
  return train_state._replace(params=params)


def _steps(run, count):
  """(parameters, losses) after some steps from random parameters, on the host."""
  step = _jitted(run)
  train_state, step_losses = _randomised(run), []
  for batch in run.data.train_batches(0, 0, count):
    train_state, numbers = step(train_state, run.place(batch))
    step_losses.append(float(numbers['loss']))
  return jax.device_get(train_state.params), np.array(step_losses)


def _gradients(config, sizes):
  """Gradients, as the change of the parameters in one step of plain SGD at learning rate 1."""
  config.optimizer.name, config.optimizer.momentum, config.optimizer.learning_rate = 'sgd', 0.0, 1.0
  config.optimizer.clip_norm, config.schedule.name = 0.0, 'constant'
  run = _run(config, sizes)
  after, _ = _steps(run, 1)
  return jax.tree.map(lambda a, b: a - b, jax.device_get(_randomised(run).params), after)


def _assert_equal_gradients(a, b):
  for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b)):
    name = jax.tree_util.keystr(path)
    assert np.abs(x).max() > 1e-6, name
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * max(1, np.abs(x).max()), err_msg=name)


@pytest.fixture(name='noisy')
def _noisy(tiny_config):
  """A config with all random operations on, as they must not depend on the mesh or the micro-batches either."""
  tiny_config.model.dropout, tiny_config.model.drop_path = 0.1, 0.1
  augment = tiny_config.data.augment
  augment.crop, augment.crop_padding, augment.flip, augment.mixup = 'pad', 1, True, 0.2
  return tiny_config


@pytest.mark.parametrize('microbatches, sizes', [
    (4, (2, 2, 2)), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, (2, 2, 2)), (4, (1, 1, 1))))])
def test_gradients_do_not_depend_on_mesh_or_microbatches(noisy, microbatches, sizes):
  alone = _gradients(noisy, (1, 1, 1))
  noisy.system.microbatches = microbatches
  _assert_equal_gradients(alone, _gradients(noisy, sizes))


@pytest.mark.slow
def test_the_default_microbatches_on_a_cpu_fit_its_caches(tiny_config):
  tiny_config.model.patch_size, tiny_config.data.batch_size = 1, 192  # 64 tokens: 600 uses of a parameter in 10 images
  micro = lambda sizes=(1, 1, 1): _run(tiny_config, sizes).resolved.system.microbatches
  run = _run(tiny_config, (1, 1, 1))
  images = microbatches.USES_A_SLICE / (run.flops_per_example_forward / (2 * run.params))
  assert images <= 192 / micro() < 2 * images and micro() > 2
  assert micro((2, 2, 2)) == micro((4, 1, 2)) and images <= 192 / 4 / micro((2, 2, 2)) < 2 * images
  chosen = _gradients(tiny_config, (1, 1, 1))
  for asked in (1, 4):  # a number in the config is used as it is
    tiny_config.system.microbatches = asked
    assert micro() == micro((2, 2, 2)) == asked
    _assert_equal_gradients(chosen, _gradients(tiny_config, (1, 1, 1)))


def test_with_batch_norm_a_batch_is_not_split_by_default():
  c = config.defaults('resnet')
  c.model.block, c.model.depths, c.model.widths, c.model.stem, c.model.stem_width = 'basic', (1,), (8,), 'full', 8
  c.data.batch_size, c.train.steps = 192, 4
  run = _run(c, (1, 1, 1))
  assert run.flops_per_example_forward / (2 * run.params) * 192 > 4 * microbatches.USES_A_SLICE
  assert run.resolved.system.microbatches == 1


@pytest.mark.parametrize('scan, split', [(None, False), (False, True)])
def test_microbatches_split_stacks_of_several_layers_that_run_unrolled(scan, split):
  of = lambda depths: PureModel('swin', swin.Config(width=8, depths=depths, num_heads=(1,), patch_size=2), (8, 8, 1), 3)
  marked = lambda depths: set(jax.tree.leaves(step_lib._unrolled(of(depths), scan)))
  assert marked((2,)) == {False}  # one pair of blocks is a stack of one: nothing to split
  assert marked((4,)) == ({False, True} if split else {False})


def test_parameters_are_really_sharded(tiny_config):
  run = _run(tiny_config, (2, 2, 2))
  kernel = state.create(run.model, run.config, run.mesh).params['encoder']['blocks']['mlp']['up']['kernel']
  assert kernel.shape == (2, 16, 32) and kernel.addressable_shards[0].data.shape == (2, 8, 16)


def test_rows_of_weight_zero_are_not_counted(tiny_config):
  run = _run(tiny_config, (1, 1, 1))
  step = _jitted(run)
  batch = next(run.data.train_batches(0, 0, 1))
  batch['weight'][5:9] = 0
  other = {name: array.copy() for name, array in batch.items()}
  other['image'][5:9], other['label'][5:9] = 255, 3
  (_, a), (_, b) = (step(_randomised(run), run.place(x)) for x in (batch, other))
  assert float(a['loss']) == float(b['loss'])
  other['weight'][5:9] = 1
  assert float(step(_randomised(run), run.place(other))[1]['loss']) != float(a['loss'])


def test_learning_rate_weight_decay_and_seed_do_not_recompile(tiny_config):
  run = _run(tiny_config, (1, 1, 1))
  step = _jitted(run)
  batch, results = run.place(next(run.data.train_batches(0, 0, 1))), set()
  start = _randomised(run)
  for changed in ({}, {'learning_rate': jnp.float32(0.5)}, {'weight_decay': jnp.float32(5.0)}):
    hparams = {name: jax.device_put(changed.get(name, old), old.sharding) for name, old in start.hparams.items()}
    train_state, _ = step(start._replace(hparams=hparams), batch)
    results.add(float(train_state.params['head']['kernel'].sum()))
  assert len(results) == 3 and step._cache_size() == 1

  make = jax.jit(lambda h: state.init(run.model, run.config, h))
  kernels = {float(make(state.hparams(run.config.optimizer, seed)).params['patch_embed']['proj']['kernel'].sum())
             for seed in (0, 1, 2)}
  assert len(kernels) == 3 and make._cache_size() == 1


def test_sigmoid_loss_is_the_sum_of_binary_cross_entropies():
  logits, targets = jnp.array([[0.0, 2.0]]), jnp.array([[0.0, 1.0]])
  expected = np.log(2) + np.log1p(np.exp(-2.0))
  assert float(losses.per_example('sigmoid', logits, targets)[0]) == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_spreads_a_share():
  np.testing.assert_allclose(losses.targets(jnp.array([1]), 4, 0.2), [[0.05, 0.85, 0.05, 0.05]], rtol=1e-6)
