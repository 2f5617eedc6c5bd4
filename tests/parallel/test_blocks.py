"""What `shard_map` blocks move, read from the program; that they compute the right thing is in tests/training."""

import jax
import jax.numpy as jnp
import pytest

from vit_jax.cost import flops
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, vit
from vit_jax.parallel import blocks
from vit_jax.parallel.mesh import MeshConfig, constrain, make_mesh, traced_on

CONFIG = vit.Config(patch_size=4, width=32, depth=3, mlp_dim=48, num_heads=8, dtype='bfloat16')  # 16 tokens and CLS
IMAGES = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)


def _model(explicit=True, remat='none'):
  execution = Execution(blocks='shard_map' if explicit else 'jit', remat=remat)
  return PureModel('vit', CONFIG, IMAGES.shape[1:], 7, execution)


def _loss(model, **kwargs):
  return lambda params, images: jnp.sum(model.apply(params, {}, images, **kwargs)[0])


def _collectives(fn, *args):
  """(primitive, mesh axes, shape, dtype) of each collective in a program, loops' bodies once."""
  found = []

  def walk(jaxpr):
    for equation in jaxpr.eqns:
      axes = equation.params.get('axis_name', equation.params.get('axes'))
      if equation.primitive.name in ('all_gather', 'reduce_scatter') or equation.primitive.name.startswith('psum'):
        aval = equation.outvars[0].aval
        found.append((equation.primitive.name, axes, aval.shape, str(aval.dtype)))
      for value in equation.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
          if hasattr(item := getattr(item, 'jaxpr', item), 'eqns'):
            walk(item)

  walk(jax.make_jaxpr(fn)(*args).jaxpr)
  return found


def test_a_sub_block_gathers_tokens_once_and_reduces_once():
  model = _model()
  found = _collectives(traced_on(make_mesh(MeshConfig(2, 2, 2)), _loss(model)), model.param_shapes(), IMAGES)
  tensor = [(name, shape) for name, axes, shape, _ in found if 'tensor' in axes]
  # 17 tokens are padded to 18; batch 8 over data and fsdp. Attention, then MLP.
  assert tensor == 2 * [('all_gather', (2, 18, 32)), ('reduce_scatter', (2, 9, 32))]


@pytest.mark.parametrize('remat, scatters', [('none', 4), ('dots', 4), ('full', 5)])
def test_each_pass_reduces_once_a_sub_block(remat, scatters):
  """Two sub-blocks forward and backward; only full recomputation brings attention's sum a second time."""
  model = _model(remat=remat)
  found = _collectives(traced_on(make_mesh(MeshConfig(2, 2, 2)), jax.grad(_loss(model))), model.param_shapes(), IMAGES)
  tensor = [name for name, axes, shape, _ in found if 'tensor' in axes and len(shape) == 3]
  assert tensor.count('reduce_scatter') == scatters


def test_parameters_travel_in_the_type_of_their_use_and_gradients_are_scattered_before_they_are_summed():
  model = _model()
  found = _collectives(traced_on(make_mesh(MeshConfig(2, 2, 2)), jax.grad(_loss(model))), model.param_shapes(), IMAGES)
  kernels = {(32, 4, 3, 4), (4, 4, 32), (32, 24), (24, 32)}  # heads and MLP columns halved, embed whole
  gathered = [(shape, dtype) for name, axes, shape, dtype in found if name == 'all_gather' and axes == ('fsdp',)]
  assert {shape for shape, _ in gathered} >= kernels
  assert all(dtype == 'bfloat16' for _, dtype in gathered)
  summed = [(shape, dtype) for name, axes, shape, dtype in found if name.startswith('psum') and len(shape) > 1]
  assert not kernels & {shape for shape, _ in summed}
  assert {(shape, 'float32') for shape in ((16, 4, 3, 4), (4, 4, 16), (16, 24), (24, 16))} <= set(summed)


@pytest.mark.parametrize('explicit', [False, True])
def test_the_backward_pass_finds_parts_not_wholes(explicit):
  """Of a layer's gathered parameters and tokens nothing is kept: they are gathered again."""
  model = _model(explicit)
  grad = jax.make_jaxpr(traced_on(make_mesh(MeshConfig(1, 4, 2)), jax.grad(_loss(model))))(model.param_shapes(), IMAGES)
  forward = next(equation for equation in grad.jaxpr.eqns if equation.primitive.name == 'scan')
  kept = {variable.aval.shape[1:] for variable in forward.outvars}  # layers left out
  assert (8, 18, 32) in kept  # the residual stream
  if explicit:  # arrays over all 8 devices: columns of the MLP, but not the tokens (2 examples of 17), nor kernels
    assert (16, 17, 24) in kept
    assert not kept & {(16, 17, 32), (272, 32), (256, 48), (256, 4, 3, 4), (128, 32), (32, 4, 32), (256, 24), (192, 32)}
  else:
    assert (8, 17, 48) in kept
    assert not kept & {(8, 17, 32), (136, 32), (32, 96), (32, 8, 3, 4), (8, 4, 32), (32, 48), (48, 32)}


def test_attention_weights_come_back_whole():
  for explicit in (False, True):
    model = _model(explicit)
    apply = lambda params, images: model.apply(params, {}, images, capture=('features', 'attention'))[1]  # noqa: B023
    captured = jax.eval_shape(traced_on(make_mesh(MeshConfig(2, 2, 2)), apply), model.param_shapes(), IMAGES)
    assert captured['attention'].shape == (3, 8, 8, 17, 17)
    assert captured['features'].shape == (3, 8, 17, 32)


def test_without_a_mesh_there_is_nothing():
  model = _model()
  assert not _collectives(_loss(model), model.param_shapes(), IMAGES)
  x = jnp.ones((2, 5, 4))
  assert constrain(x, 'batch') is x and blocks.on_first_part(x, 'mlp') is x and blocks.own_part(x, 'mlp') is x
  assert blocks.split_tokens(x) is x


@pytest.mark.parametrize('remat', ['dots', 'full'])
def test_as_much_is_computed_again_with_parameters_in_parts_as_with_wholes(remat):
  """A policy sees the products of gathered parameters too."""
  def again(mesh):
    executed = [flops.count(traced_on(make_mesh(mesh), jax.grad(_loss(_model(False, how)))), _model().param_shapes(),
                            IMAGES) for how in ('none', remat)]
    return executed[1] - executed[0]
  assert again(MeshConfig(1, 8, 1)) == again(MeshConfig(8, 1, 1))
