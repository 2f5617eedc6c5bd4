"""Sharding rules are a config: other rules compute the same, and those that cannot be are refused before compiling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from vit_jax import config, schema
from vit_jax.errors import UserError
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, vit
from vit_jax.parallel import blocks, rules
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import MeshConfig, abstract_mesh, batch_shards, make_mesh, param_shardings, sharding
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib

CONFIG = vit.Config(patch_size=4, width=32, depth=2, mlp_dim=64, num_heads=8, layer_scale=0.5)
IMAGES = jax.random.normal(jax.random.key(0), (8, 8, 16, 3))  # 8 tokens and CLS
ROWS = (('batch', 'data'), ('batch', 'fsdp'))
# (rules, mesh, blocks); with what is special about them.
OTHERS = {
    'mlp over fsdp': ((*ROWS, ('mlp', 'fsdp'), ('heads', 'tensor'), ('tokens', 'tensor')), (1, 4, 2), 'jit'),
    'embed over two axes': ((*ROWS, ('embed', 'data'), ('embed', 'fsdp'), ('mlp', 'tensor')), (2, 2, 2), 'jit'),
    'tokens whole': ((*ROWS, ('embed', 'fsdp'), ('mlp', 'tensor'), ('heads', 'tensor')), (2, 2, 2), 'jit'),
    'all over data': ((('batch', 'data'), ('embed', 'data')), (8, 1, 1), 'jit'),
    'axes swapped': ((('batch', 'data'), ('batch', 'tensor'), ('embed', 'tensor'), ('tokens', 'fsdp'),
                      ('heads', 'fsdp'), ('mlp', 'fsdp')), (2, 2, 2), 'shard_map'),
    'parameters over data': ((*ROWS, ('embed', 'data'), ('tokens', 'tensor'), ('heads', 'tensor'), ('mlp', 'tensor')),
                             (2, 2, 2), 'shard_map'),
}


def _model(explicit='jit'):
  return PureModel('vit', CONFIG, IMAGES.shape[1:], 5, Execution(blocks=explicit))


def _params(model):
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda s: 0.3 * rng.standard_normal(s.shape, np.float32), model.param_shapes())


def _loss(model):
  return lambda params, images: jnp.sum(model.apply(params, {}, images)[0] ** 2)


@pytest.mark.parametrize('name', OTHERS)
def test_other_rules_give_the_loss_and_gradients_of_one_device(name):
  table, sizes, explicit = OTHERS[name]
  mesh, model = make_mesh(MeshConfig(*sizes, rules=table)), _model(explicit)
  blocks.check(table, explicit == 'shard_map')
  places = param_shardings(mesh, model.param_shapes(), model.param_axes())
  params, images = jax.device_put(_params(model), places), jax.device_put(IMAGES, sharding(mesh, 'batch'))
  step = jax.jit(mesh_lib.traced_on(mesh, jax.value_and_grad(_loss(model))), out_shardings=(sharding(mesh), places))
  got, expected = step(params, images), jax.jit(jax.value_and_grad(_loss(_model())))(_params(model), IMAGES)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max(), err_msg=jax.tree_util.keystr(path))


def test_rules_say_where_arrays_are():
  table, sizes, _ = OTHERS['mlp over fsdp']
  mesh, model = abstract_mesh(sizes, table), _model()
  mlp = param_shardings(mesh, model.param_shapes(), model.param_axes())['encoder']['blocks']['mlp']
  assert mlp['up']['kernel'].spec == P(None, None, 'fsdp') and mlp['down']['kernel'].spec == P(None, 'fsdp', None)
  assert batch_shards(mesh) == 4 and batch_shards(abstract_mesh((8, 1, 1), OTHERS['all over data'][0])) == 8
  assert batch_shards(abstract_mesh((2, 2, 2), ())) == 1
  # Of an activation the first dimension is split, and a second one over the same axis is whole.
  assert rules.spec('batch', None, 'mlp', rules=table) == P(('data', 'fsdp'), None, None)
  assert sharding(abstract_mesh((2, 2, 2)), 'batch', 'tokens').spec == P(('data', 'fsdp'), 'tensor')


def test_a_function_is_traced_again_under_other_rules():
  """The rules are a part of JAX's cache keys, also of functions that are jitted inside."""
  inner = jax.jit(lambda x: jnp.float32(len(rules.mesh_axes('embed'))) * x)
  counts = [jax.jit(mesh_lib.traced_on(make_mesh(MeshConfig(rules=table)), lambda x: inner(x)))(jnp.float32(1))
            for table in (rules.DEFAULT, OTHERS['embed over two axes'][0], ())]
  assert counts == [1, 2, 0] and inner(jnp.float32(1)) == 1


@pytest.mark.parametrize('table, message', [
    ((('embed', 'tensor'), ('mlp', 'tensor')),
     r"encoder/blocks/mlp/down/kernel has the axes 'mlp' and 'embed', and rules split both over 'tensor': .* \("),
    ((('embeds', 'fsdp'),), r"rules: 'embeds': no such logical axis; did you mean 'embed'\?"),
    ((('embed', 'fdsp'),), r"rules: 'embed' is split over 'fdsp', .* no such axis; did you mean 'fsdp'\?"),
    ((('embed', 'fsdp'),), r'tensor=2 splits nothing of this model, none of whose axes the rules'),
])
def test_rules_that_cannot_be_are_refused_before_compiling(table, message):
  c = config.defaults('vit')
  c.model.patch_size, c.train.steps, c.data.batch_size = 2, 1, 32
  c.system.mesh.update(data=1, fsdp=4, tensor=2, rules=table)
  with pytest.raises(UserError, match=message):
    run_lib.prepare(run_config.cast(c))


@pytest.mark.parametrize('table, message', [
    (OTHERS['mlp over fsdp'][0], r'tokens over tensor, heads over tensor, mlp over fsdp, batch over data x fsdp'),
    (OTHERS['tokens whole'][0], r'tokens over nothing'),
    ((('batch', 'data'), *rules.DEFAULT[2:]), r'batch over data\. Set blocks=jit')], ids=['mlp', 'tokens', 'embed'])
def test_rules_that_explicit_blocks_cannot_follow_are_refused(table, message):
  c = config.defaults('vit')
  c.model.patch_size, c.train.steps, c.data.batch_size = 2, 1, 32
  c.system.execution.blocks = 'shard_map'
  c.system.mesh.update(data=2, fsdp=4, tensor=1, rules=table)
  with pytest.raises(UserError, match=f'blocks=shard_map needs .*{message}'):
    run_lib.prepare(run_config.cast(c))
  blocks.check(table, explicit=False)


def test_rules_are_outside_of_a_runs_identity_and_survive_json():
  c = config.defaults('vit')
  before = run_config.run_hash(run_config.cast(c))
  c.system.mesh.rules = OTHERS['mlp over fsdp'][0]
  cast = run_config.cast(c)
  assert run_config.run_hash(cast) == before and cast.system.mesh.rules == OTHERS['mlp over fsdp'][0]
  assert schema.cast(MeshConfig, schema.plain(cast.system.mesh)) == cast.system.mesh
