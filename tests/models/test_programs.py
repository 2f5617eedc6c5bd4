"""The programs that accelerators are given, run on a CPU: they compute what the CPU's program does."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers import kernels, row_attention, stack
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, vit
from vit_jax.parallel import mesh as mesh_lib

SMALL = dict(patch_size=4, width=64, depth=3, mlp_dim=96, num_heads=4, pool='gap', pos_embed='sincos2d')


def _values(execution, dtype='float32', **fields):
  """(logits, gradients) of a small ViT with random parameters on a mesh of one device."""
  model = PureModel('vit', vit.Config(**SMALL | fields, dtype=dtype), (16, 16, 3), 7, execution)
  leaves, tree = jax.tree.flatten(model.param_shapes())
  keys = jax.random.split(jax.random.key(0), len(leaves) + 2)
  params = tree.unflatten([0.15 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)])
  images, weights = jax.random.normal(keys[-1], (4, 16, 16, 3)), jax.random.normal(keys[-2], (4, 7))

  def loss(params):
    logits = model.apply(params, {}, images, None)[0]
    return jnp.sum(logits * weights), logits

  traced = mesh_lib.traced_on(mesh_lib.single_device(), jax.value_and_grad(loss, has_aux=True))
  (_, logits), gradients = jax.jit(traced)(params)
  return logits, gradients


@pytest.fixture
def as_if_on_a_tpu(monkeypatch):
  """What is traced is for a TPU; its kernel is interpreted."""
  interpreted = lambda *args: kernel(*args[:-1], True)
  kernel = row_attention.by_kernel
  monkeypatch.setattr(row_attention, 'by_kernel', interpreted)
  for module in (mesh_lib, stack):
    monkeypatch.setattr(module, 'platform', lambda: 'tpu')


@pytest.mark.parametrize('scan', [True, False, None], ids=['scan', 'unrolled', 'chosen'])
def test_the_program_for_a_tpu_is_equal_in_float32(as_if_on_a_tpu, monkeypatch, scan):
  """Products apart, and in a scan only matmuls kept."""
  ours = _values(Execution(scan=scan))
  monkeypatch.undo()
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, _values(Execution(scan=True)))


@pytest.mark.parametrize('where', ['cpu', 'tpu', 'tpu, scan'])
def test_bfloat16_is_close_to_float32(request, where):
  """The forward pass to 2e-2 of the largest logit, the gradients' cosine over 0.999: by the plain program, which a CPU
  runs, and by that of a TPU, with its kernel."""
  wanted, of_float32 = _values(Execution())
  if where != 'cpu':
    request.getfixturevalue('as_if_on_a_tpu')
    asked = kernels.Request(dtype='bfloat16', tokens=16, heads=4, head_dim=16)
    assert kernels.choose('auto', asked, 'tpu')[0] == 'rows'
  logits, gradients = _values(Execution(scan=where == 'tpu, scan'), 'bfloat16')
  print('logits apart by', jnp.abs(logits - wanted).max() / jnp.abs(wanted).max())
  assert jnp.abs(logits - wanted).max() <= 2e-2 * jnp.abs(wanted).max()
  flat = lambda tree: jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
  a, b = flat(gradients), flat(of_float32)
  assert a @ b / jnp.linalg.norm(a) / jnp.linalg.norm(b) > 0.999


def _written(execution, dtype):
  """Shapes and dtypes of all that differentiation keeps of a ViT's blocks."""
  model = PureModel('vit', vit.Config(**SMALL, dtype=dtype), (16, 16, 3), 7, execution)
  images = jax.ShapeDtypeStruct((5, 16, 16, 3), jnp.float32)
  traced = mesh_lib.traced_on(mesh_lib.single_device(), lambda params, images: jax.vjp(
      lambda params: model.apply(params, {}, images, None)[0], params)[1])
  return [leaf for leaf in jax.tree.leaves(jax.eval_shape(traced, model.param_shapes(), images)) if leaf.ndim >= 3]


def test_a_scan_on_a_tpu_keeps_five_arrays_a_layer(as_if_on_a_tpu):
  """The block's input, queries, keys and values as one, what attention and its projection give, and the MLP's columns:
  in bfloat16, no logits and nothing of norms or GELU."""
  kept = [leaf for leaf in _written(Execution(scan=True), 'bfloat16') if leaf.shape[:2] == (SMALL['depth'], 5)]
  assert {leaf.dtype for leaf in kept} == {jnp.dtype('bfloat16')}
  tokens = 16
  assert sorted(math.prod(leaf.shape[2:]) for leaf in kept) == 3 * [tokens * SMALL['width']] + [
      tokens * SMALL['mlp_dim'], 3 * tokens * SMALL['width']]
