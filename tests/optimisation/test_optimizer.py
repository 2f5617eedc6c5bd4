import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax import checkpoint
from vit_jax.errors import UserError
from vit_jax.models import PureModel, vit
from vit_jax.optimisation import optimizer
from vit_jax.optimisation.optimizer import OptimizerConfig
from vit_jax.parallel.mesh import MeshConfig, make_mesh
from vit_jax.training import config as run_config
from vit_jax.training import state as state_lib


def _params(seed):
  k1, k2 = jax.random.split(jax.random.key(seed))
  return {'layer': {'kernel': jax.random.normal(k1, (4, 3)), 'bias': jax.random.normal(k2, (3,))}}


def _run(config, grads, params, steps=5, model=None):
  @jax.jit
  def end(params, grads):
    state = optimizer.transformation(config, model=model).init(params)
    for _ in range(steps):
      params, state = optimizer.step(config, grads, state, params, jnp.float32(config.learning_rate),
                                     jnp.float32(config.weight_decay), model=model)
    return params
  return end(params, grads)


def _theirs(tx, grads, params, steps=5):
  @jax.jit
  def end(params, grads):
    state = tx.init(params)
    for _ in range(steps):
      updates, state = tx.update(grads, state, params)
      params = optax.apply_updates(params, updates)
    return params
  with jax.numpy_dtype_promotion('standard'):  # optax itself promotes
    return end(params, grads)


def _assert_close(ours, theirs):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


@pytest.mark.parametrize('config, peer', [
    (OptimizerConfig(learning_rate=0.01, weight_decay=0.1, clip_norm=1.0), lambda mask: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(0.01, weight_decay=0.1, mask=mask))),
    (OptimizerConfig('sgd', learning_rate=0.01, weight_decay=0.1, clip_norm=None), lambda mask: optax.chain(
        optax.add_decayed_weights(0.1, mask), optax.sgd(0.01, momentum=0.9))),
    (OptimizerConfig('sgd', learning_rate=0.01, weight_decay=0.5, clip_norm=0.1), lambda mask: optax.chain(
        optax.clip_by_global_norm(0.1), optax.add_decayed_weights(0.5, mask), optax.sgd(0.01, momentum=0.9))),
    (OptimizerConfig('lion', learning_rate=0.01, weight_decay=0.1, clip_norm=None), lambda mask: optax.lion(
        0.01, 0.9, 0.99, weight_decay=0.1, mask=mask)),
    (OptimizerConfig('sgd', learning_rate=0.01, nesterov=True, clip_norm=None),
     lambda mask: optax.sgd(0.01, momentum=0.9, nesterov=True)),
], ids=['adamw', 'sgd', 'sgd clipped', 'lion', 'nesterov'])
def test_equals_optax(config, peer):
  params, grads = _params(0), _params(1)
  _assert_close(_run(config, grads, params), _theirs(peer(optimizer.decayed(params)), grads, params))


def _vit(**fields):
  return PureModel('vit', vit.Config(**dict(patch_size=4, width=16, depth=2, mlp_dim=32, num_heads=2) | fields),
                   (8, 8, 3), 5)


def _random(model, seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), jnp.float32), model.param_shapes())


def test_muon_equals_optax_on_each_matrix():
  """Compared with optax.contrib.muon on the same matrices as separate parameters, and Adam on other parameters."""
  model = _vit(stem='conv', pool='map')
  params, grads = _random(model, 0), _random(model, 1)
  matrices = {}

  def apart(tree):
    """{name: a matrix, or the whole array}."""
    out = {}
    for keys, value in jax.tree_util.tree_leaves_with_path(tree):
      path = [key.key for key in keys]
      inside = path[-1] == 'kernel' and path[0] != 'head' and path[:3] != ['patch_embed', 'convs', 0]  # the input layer
      lists = {'qkv': 3, 'key_value': 2}.get(path[-2], 1) if inside else 1
      rows = 2 if path[-2:] == ['out', 'kernel'] else 3 if 'convs' in path else 1
      for i, layer in enumerate(value if 'encoder' in path else [value]):
        for j in range(lists):
          part = layer[:, :, j] if lists > 1 else layer
          matrices[key := f'{path} {i} {j}'] = inside
          out[key] = part.reshape(int(np.prod(part.shape[:rows])), -1) if inside else part
    return out

  config = OptimizerConfig('muon', learning_rate=0.01, clip_norm=None)
  ours = apart(_run(config, grads, params, 2, model))
  for tx, is_matrix in ((optax.contrib.muon(0.01, consistent_rms=0.2), True), (optax.adam(0.01), False)):
    those = lambda tree, is_matrix=is_matrix: {name: x for name, x in tree.items() if matrices[name] == is_matrix}
    assert len(those(ours)) > 5
    _assert_close(those(ours), _theirs(tx, those(apart(grads)), those(apart(params)), 2))


def test_adafactor_equals_the_formulas_of_the_paper():
  """Zhai et al. 2022, sec. 3.4, written out for the queries' map [D, H K] of one layer and for a bias."""
  model = _vit(width=128, num_heads=2)
  params = _random(model, 0)
  every = [_random(model, seed) for seed in range(1, 4)]
  config = OptimizerConfig('adafactor', learning_rate=0.1, beta2=0.6, clip_norm=None)
  ours, state = params, optimizer.transformation(config, model=model).init(params)
  step = jax.jit(lambda grads, state, ours: optimizer.step(config, grads, state, ours, jnp.float32(0.1), jnp.float32(0),
                                                           model=model))
  for grads in every:
    ours, state = step(grads, state, ours)
  blocks = lambda tree: tree['encoder']['blocks']
  queries = lambda tree: np.asarray(blocks(tree)['attention']['qkv']['kernel'][1, :, :, 0]).reshape(128, 128)
  bias = lambda tree: np.asarray(blocks(tree)['mlp']['up']['bias'][1])
  for value, factored in ((queries, True), (bias, False)):
    p, moment, momentum = value(params), 0.0, np.zeros_like(value(params))
    rows = columns = 0.0
    for t, grads in enumerate(every, 1):
      g, decay = value(grads), min(0.6, 1 - t ** -0.8)
      if factored:
        rows = decay * rows + (1 - decay) * (g * g).mean(1)
        columns = decay * columns + (1 - decay) * (g * g).mean(0)
        moment = rows[:, None] * columns[None] / rows.mean()
      else:
        moment = decay * moment + (1 - decay) * g * g
      momentum = 0.9 * momentum + 0.1 * g / np.sqrt(moment)
      p = p - 0.1 * momentum
      momentum = np.asarray(jnp.asarray(momentum, jnp.bfloat16), np.float32)
    np.testing.assert_allclose(value(ours), p, rtol=1e-4, atol=5e-4)  # momentum in bfloat16


@pytest.mark.parametrize('name, copies', [('adamw', 2.0), ('lion', 1.0), ('adafactor', 0.5), ('muon', 1.0)])
def test_the_size_of_the_optimizer_state(name, copies):
  """In float32 copies of a large model's parameters; Muon keeps Adam's second moment of the other parameters."""
  model = PureModel('vit', vit.Config(**vit.size('L/16')), (224, 224, 3), 10)
  kept = jax.eval_shape(optimizer.transformation(OptimizerConfig(name), model=model).init, model.param_shapes())
  size = lambda tree: sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))
  assert size(kept) / size(model.param_shapes()) == pytest.approx(copies, abs=0.01)


@pytest.mark.parametrize('name', ['adafactor', 'lion', 'muon'])
def test_optimizer_state_is_sharded_like_its_parameters_and_can_be_restored(name, tiny_config, tmp_path):
  tiny_config.optimizer.name = name
  config, model = run_config.cast(tiny_config), _vit()
  mesh = make_mesh(MeshConfig(2, 2, 2))
  shapes = state_lib.shapes(model, config)
  places = state_lib.placed(model, shapes, mesh)
  split = lambda tree: sum(not place.is_fully_replicated for place in jax.tree.leaves(tree))
  assert split(places.optimizer) >= split(places.params) > 0
  rng = np.random.default_rng(0)
  fill = lambda s, place: jax.device_put(rng.integers(0, 9, s.shape).astype(s.dtype), place)
  full = jax.tree.map(fill, shapes, places)
  plain = state_lib.to_plain(full)
  with contextlib.closing(checkpoint.Checkpoints(tmp_path)) as checkpoints:
    checkpoints.save(3, plain, {})
    checkpoints.wait()
    back = state_lib.from_plain(full, checkpoints.restore(3, checkpoint.abstract(plain)))
  assert jax.tree.structure(back) == jax.tree.structure(full)
  jax.tree.map(np.testing.assert_array_equal, full, back)


def test_only_kernels_decay_although_norms_are_stacked_over_layers():
  model = PureModel('vit', vit.Config(patch_size=4, width=16, depth=2, mlp_dim=32, num_heads=2, layer_scale=0.1,
                                      pool='map'), (8, 8, 3), 5)
  decays = {jax.tree_util.keystr(path): flag
            for path, flag in jax.tree_util.tree_leaves_with_path(optimizer.decayed(model.param_shapes()))}
  assert all(flag == name.endswith("['kernel']") for name, flag in decays.items())
  assert sum(decays.values()) == 4 + 2 + 5  # blocks, patches and head, attention pooling


def test_moving_average_starts_fast_and_ends_at_its_decay():
  zero, one = {'w': jnp.zeros(3)}, {'w': jnp.ones(3)}
  at = lambda step: float(optimizer.moving_average(zero, one, 0.99, jnp.int32(step))['w'][0])
  assert at(0) == pytest.approx(0.9) and at(10_000) == pytest.approx(0.01)
  first = optimizer.moving_average(zero, one, 0.99, jnp.int32(0), warmup=False)
  assert float(first['w'][0]) == pytest.approx(0.01)


def test_a_decay_that_turns_the_signs_of_kernels_is_refused():
  optimizer.check(OptimizerConfig(learning_rate=0.5, weight_decay=2.0))
  with pytest.raises(UserError, match=r'optimizer\.weight_decay=2\.1: must be at most 2'):
    optimizer.check(OptimizerConfig(learning_rate=0.5, weight_decay=2.1))
