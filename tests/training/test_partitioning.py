"""Every mesh, both ways to run a block, and every family compute what a single device computes."""

import dataclasses
import functools
import math

import in_turn
import jax
import numpy as np
import pytest

from vit_jax import config
from vit_jax.data import device_augment
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib
from vit_jax.training import state
from vit_jax.training.step import make_train_step

STEPS = 4
QUICK = [(8, 1, 1), (2, 2, 2)]
SLOW = [(1, 8, 1), (1, 1, 8), (4, 2, 1), (2, 4, 1), (4, 1, 2), (2, 1, 4), (1, 4, 2), (1, 2, 4)]


# The options of a block, each at least once with each way to run it.
NOISE = (('dropout', 0.1), ('drop_path', 0.2))
VARIANTS = {
    'plain': ('jit', (('pos_embed', 'rope2d'), *NOISE), (), 1),
    'scanned': ('shard_map', (('pos_embed', 'rope2d'), *NOISE), (('remat', 'dots'),), 4),
    'relative': ('shard_map', (('pos_embed', 'relative'), ('pool', 'gap')), (), 1),
    'local': ('shard_map', (('attention', 'local'), ('attention_radius', 1)), (), 1),
    'unrolled': ('shard_map', (('pool', 'map'), ('pos_embed', 'sincos2d'), *NOISE),
                 (('scan', False), ('remat', 'full')), 1),
    'cls-compiler': ('jit', (('drop_path', 0.2),), (('scan', False), ('remat', 'dots')), 2),  # last block: CLS alone
    'cls-shard_map': ('shard_map', (('pos_embed', 'rope2d'),), (('scan', False),), 1),
}

# 16 tokens and CLS are 17, which no size of `tensor` divides.
VIT = dict(patch_size=2, width=32, depth=2, mlp_dim=64, num_heads=8, pool='cls', layer_scale=0.5)
# Other shapes, on a mesh: (family, its fields, mesh, micro-batches). What they share with a ViT is tried on eight
# devices above; four show whether a family's own parts are divided as they should be.
FAMILIES = {
    'vit-conv_stem': ('vit', VIT | dict(stem='conv'), (1, 2, 2), 1),
    'vit-hybrid': ('vit', VIT | dict(stem='resnet', stem_depths=(1,), stem_width=16, patch_size=4), (2, 1, 2), 1),
    'vit-local': ('vit', VIT | dict(attention='local', attention_radius=1, global_tokens=2), (1, 2, 2), 1),
    'vit-linear': ('vit', VIT | dict(attention='linear', head_dim=2), (2, 1, 2), 2),
    'deit': ('deit', dict(patch_size=2, width=32, depth=2, mlp_dim=64, num_heads=8), (1, 2, 2), 1),
    'swin': ('swin', dict(width=16, depths=(2, 2), num_heads=(2, 4), window_size=3, patch_size=2, drop_path=0.2),
             (1, 2, 2), 1),
    'convnext': ('convnext', dict(depths=(2, 1), widths=(8, 16), patch_size=2, kernel_size=3, layer_scale=0.5,
                                  drop_path=0.2), (2, 1, 2), 1),
    'resnet': ('resnet', dict(depths=(3,), widths=(32,), stem='full', stem_width=8), (2, 2, 1), 1),
    'resnet-microbatches': ('resnet', dict(block='basic', depths=(1, 1), widths=(8, 16), stem='full', stem_width=8),
                            (4, 1, 1), 2),
    'regnet_y': ('resnet', dict(depths=(2,), widths=(16,), stem='half', stem_width=8, bottleneck=1, group_width=4,
                                squeeze_excite=True), (1, 4, 1), 1),
}


@functools.cache
def _train(sizes, blocks='jit', model=(), execution=(), microbatches=1, family='vit'):
  """(gradients of the first step, losses, statistics of the first step) on a mesh, from random parameters.

  A zero head would hide the backbone.
  """
  c = config.defaults(family)
  c.model.update((VIT if family == 'vit' else {}) | dict(model))
  c.system.execution.update(dict(execution), blocks=blocks)
  c.data.batch_size, c.system.microbatches, c.train.steps = 32, microbatches, STEPS
  c.optimizer.clip_norm = 0.0
  run = run_lib.prepare(run_config.cast(c))
  mesh = make_mesh(MeshConfig(*sizes), jax.devices()[:math.prod(sizes)])
  run = dataclasses.replace(run, mesh=mesh)

  train_state = _random_state(run)
  batches = [run.place(batch) for batch in run.data.train_batches(0, 0, STEPS)]
  step = make_train_step(run.model, run.config, run.steps, device_augment.augment(run.config.data.augment))
  out = (jax.tree.map(lambda a: a.sharding, train_state), mesh_lib.sharding(mesh))
  step = jax.jit(mesh_lib.traced_on(mesh, step), out_shardings=out)
  losses, grads = [], None
  for batch in batches:
    train_state, numbers = step(train_state, batch)
    losses.append(float(numbers['loss']))
    if grads is None:  # Adam's first moment is (1 - beta1) times the gradient
      grads = jax.tree.map(lambda m: m / (1 - c.optimizer.beta1), jax.device_get(train_state.optimizer[1].mu))
      stats = jax.device_get(train_state.stats)
  return grads, np.array(losses), stats


def _random_state(run):
  """A state with random parameters and zeros elsewhere, made without compilation."""
  hparams, rng = state.hparams(run.config.optimizer, 0), np.random.default_rng(0)
  shapes = state.shapes(run.model, run.config)
  zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
  params = jax.tree.map(lambda s: rng.normal(0, 0.2, s.shape).astype(np.float32), shapes.params)
  return jax.device_put(zeros._replace(params=params, hparams=hparams),
                        state.placed(run.model, shapes, run.mesh))


def _assert_equal(a, b, drift=1e-5):
  """Asserts that gradients and losses are equal; `drift` is how far the losses may diverge in STEPS steps."""
  for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a[0]), jax.tree.leaves(b[0]), strict=True):
    name = jax.tree_util.keystr(path)
    assert np.abs(x).max() > 5e-5, name
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * max(1, np.abs(x).max()), err_msg=name)
  np.testing.assert_allclose(a[1], b[1], rtol=drift, atol=drift)
  assert len(set(a[1])) == STEPS
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * np.abs(x).max()), a[2], b[2])


@pytest.mark.parametrize('blocks', ['jit', 'shard_map'])
@pytest.mark.parametrize('sizes', in_turn.slow_but(QUICK, QUICK + SLOW), ids=str)
def test_gradients_and_first_steps_equal_those_of_a_single_device(sizes, blocks):
  _assert_equal(_train((1, 1, 1)), _train(sizes, blocks))


@pytest.mark.slow
@pytest.mark.parametrize('variant', VARIANTS)
def test_options_of_blocks_equal_those_of_a_single_device(variant):
  blocks, model, execution, microbatches = VARIANTS[variant]
  _assert_equal(_train((1, 1, 1), model=model), _train((2, 2, 2), blocks, model, execution, microbatches))


@pytest.mark.parametrize('name', in_turn.slow_but(('resnet',), FAMILIES))
def test_every_family_equals_that_of_a_single_device(name):
  """This includes batch norm, whose statistics are of the whole (micro-)batch however it is sharded."""
  family, model, sizes, microbatches = FAMILIES[name]
  alone, apart = (_train(s, 'jit', tuple(model.items()), (), microbatches, family) for s in ((1, 1, 1), sizes))
  assert bool(alone[2]) == (family == 'resnet')
  _assert_equal(alone, apart, drift=1e-4)


def test_a_mesh_that_a_family_cannot_use_is_refused():
  family, model, _, _ = FAMILIES['regnet_y']
  c = config.defaults(family)
  c.model.update(model)
  c.train.steps, c.data.batch_size = 1, 32
  c.system.mesh.update(data=1, fsdp=4, tensor=2)
  with pytest.raises(UserError, match=r'tensor=2 splits nothing of this model'):
    run_lib.prepare(run_config.cast(c))
  c.model.widths, c.model.group_width = (12,), 6
  c.system.mesh.update(data=1, fsdp=8, tensor=1)
  with pytest.raises(UserError, match=r"fsdp=8 does not divide 'embed' of size 12 \(4 does\)"):
    run_lib.prepare(run_config.cast(c))
