"""Every mesh, and both ways through a block, compute what one device computes."""

import dataclasses
import functools
import math

import jax
import numpy as np
import pytest

from vit_jax import config as config_lib
from vit_jax.data import device
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib
from vit_jax.training import state
from vit_jax.training.step import make_train_step

STEPS = 20
QUICK = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]
SLOW = [(4, 2, 1), (2, 4, 1), (4, 1, 2), (2, 1, 4), (1, 4, 2), (1, 2, 4)]
MESHES = QUICK + [pytest.param(sizes, marks=pytest.mark.slow) for sizes in SLOW]

# What acts in a block, each at least once together with what carries it out.
NOISE = (('dropout', 0.1), ('drop_path', 0.2))
VARIANTS = {
    'plain': ('jit', (('pos_embed', 'rope2d'), *NOISE), (), 1),
    'scanned': ('shard_map', (('pos_embed', 'rope2d'), *NOISE), (('remat', 'dots'),), 4),
    'unrolled': ('shard_map', (('pool', 'map'), ('pos_embed', 'sincos2d'), *NOISE),
                 (('scan', False), ('remat', 'full')), 1),
}


@functools.cache
def _train(sizes, blocks='jit', model=(), execution=(), microbatches=1):
  """(the first step's gradients, the losses) on a mesh, from random parameters: a zero head would hide the backbone.

  16 tokens and CLS are 17, which no size of `tensor` divides.
  """
  c = config_lib.defaults('vit')
  c.model.update(patch_size=2, width=32, depth=2, mlp_dim=64, num_heads=8, pool='cls', layer_scale=0.5)
  c.model.update(dict(model))
  c.system.execution.update(dict(execution), blocks=blocks)
  c.data.batch_size, c.system.microbatches, c.train.steps = 32, microbatches, STEPS
  c.optimizer.clip_norm = 0.0
  run = run_lib.prepare(run_config.cast(c))
  mesh = make_mesh(MeshConfig(*sizes), jax.devices()[:math.prod(sizes)])
  run = dataclasses.replace(run, mesh=mesh)

  train_state = _random_state(run)
  batches = [run.place(batch) for batch in run.data.train_batches(0, 0, STEPS)]
  step = make_train_step(run.model, run.config, run.steps, device.augment(run.config.data.augment))
  out = (jax.tree.map(lambda a: a.sharding, train_state), mesh_lib.sharding(mesh))
  # The partitioned program is what is tested: machine code that is good for 20 steps takes half the time to make.
  step = jax.jit(mesh_lib.on(mesh, step), out_shardings=out).lower(train_state, batches[0]).compile(
      compiler_options={'xla_backend_optimization_level': 0})
  losses, grads = [], None
  for batch in batches:
    train_state, numbers = step(train_state, batch)
    losses.append(float(numbers['loss']))
    if grads is None:  # Adam's first moment is (1 - beta1) times the gradient
      grads = jax.tree.map(lambda m: m / (1 - c.optimizer.beta1), jax.device_get(train_state.optimizer[1].mu))
  return grads, np.array(losses)


def _random_state(run):
  """A state with every parameter random and all else zero, made without compiling anything."""
  hparams, rng = state.hparams(run.config.optimizer, 0), np.random.default_rng(0)
  shapes = jax.eval_shape(lambda: state.init(run.model, run.config, hparams))
  zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
  params = jax.tree.map(lambda s: rng.normal(0, 0.2, s.shape).astype(np.float32), shapes.params)
  return jax.device_put(zeros._replace(params=params, hparams=hparams),
                        state.shardings(run.model, run.config, run.mesh))


def _assert_equal(a, b):
  for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a[0]), jax.tree.leaves(b[0]), strict=True):
    name = jax.tree_util.keystr(path)
    assert np.abs(x).max() > 1e-4, name
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * max(1, np.abs(x).max()), err_msg=name)
  np.testing.assert_allclose(a[1], b[1], rtol=1e-5, atol=1e-5)
  assert len(set(a[1])) == STEPS


@pytest.mark.parametrize('blocks', ['jit', 'shard_map'])
@pytest.mark.parametrize('sizes', MESHES, ids=str)
def test_gradients_and_first_steps_equal_the_single_devices(sizes, blocks):
  _assert_equal(_train((1, 1, 1)), _train(sizes, blocks))


@pytest.mark.parametrize('variant', VARIANTS)
def test_so_do_noise_positions_and_ways_to_run_a_stack(variant):
  blocks, model, execution, microbatches = VARIANTS[variant]
  _assert_equal(_train((1, 1, 1), model=model), _train((2, 2, 2), blocks, model, execution, microbatches))
