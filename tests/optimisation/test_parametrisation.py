"""muP: independence of width and depth, equality with the standard parametrisation, and the papers' table."""

import dataclasses
import functools

import in_turn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax.errors import UserError
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, vit
from vit_jax.optimisation import optimizer
from vit_jax.optimisation import parametrisation as parametrisation_lib
from vit_jax.optimisation.optimizer import OptimizerConfig
from vit_jax.optimisation.parametrisation import ParametrisationConfig
from vit_jax.optimisation.schedule import ScheduleConfig
from vit_jax.parallel.mesh import MeshConfig, make_mesh, sharding
from vit_jax.training import state
from vit_jax.training.config import RunConfig
from vit_jax.training.step import make_train_step

STANDARD, MUP = ParametrisationConfig(), ParametrisationConfig('mup', base_width=32, base_depth=4)
ADAMW = OptimizerConfig('adamw', learning_rate=5e-3)
SGD = OptimizerConfig('sgd', learning_rate=0.2, clip_norm=None)
SGD_CLIPPED = OptimizerConfig('sgd', learning_rate=1.0, clip_norm=0.2)
SHAPE, CLASSES, STEPS = (8, 8, 1), 4, 4


def _model(width=32, depth=4, execution=Execution()):
  config = vit.Config(patch_size=4, width=width, depth=depth, mlp_dim=2 * width, num_heads=width // 8, pool='gap')
  return PureModel('vit', config, SHAPE, CLASSES, execution)


def _key():
  """A key of a generator that compiles much faster than the default one."""
  return jax.random.key(0, impl='rbg')


def _batch():
  """Batches in which each class is one picture plus noise, so that all first steps learn the same."""
  rng = np.random.default_rng(0)
  label = np.arange(64, dtype=np.int32) % CLASSES
  image = rng.normal(size=(CLASSES, *SHAPE))[label] + rng.normal(size=(64, *SHAPE))
  return {'image': image.astype(np.float32), 'label': label, 'weight': np.ones(64, np.float32)}


@functools.cache
def _sized(width=32, depth=4):
  """(model, standard initial parameters, params -> (gradients, outputs)), made once per size."""
  model, batch = _model(width, depth), _batch()

  def loss(params):
    logits_BC, intermediates, _ = model.apply(params, {}, batch['image'], capture=('features',))
    loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch['label'])
    return jnp.mean(loss_B), {'features': intermediates['features'][-1], 'logits': logits_BC}

  return model, jax.jit(model.init)(_key())[0], jax.jit(jax.grad(loss, has_aux=True))


@functools.cache
def _coordinates(config, parametrisation=STANDARD, **size):
  """Root mean squares of the change by training, of the residual stream after the last block and of the logits."""
  model, params, gradients = _sized(**size)
  factors = parametrisation_lib.factors(parametrisation, config.name, model)
  step = jax.jit(lambda *state: optimizer.step(config, *state, jnp.float32(config.learning_rate), jnp.float32(0),
                                               factors))
  params = parametrisation_lib.initial(params, factors)
  opt_state, (_, first) = optimizer.transformation(config).init(params), gradients(params)
  for _ in range(STEPS):
    params, opt_state = step(gradients(params)[0], opt_state, params)
  change = jax.tree.map(jnp.subtract, gradients(params)[1], first)
  return {name: float(jnp.sqrt(jnp.mean(x * x))) for name, x in change.items()}


# By which factor, at least, training changes more in a standard model of eight times the size.
DRIFTS = {
    ('adamw', 'width'): {'features': 4, 'logits': 4},  # each entry of a kernel moves by the learning rate
    ('sgd', 'width'): {'logits': 3},
    ('adamw', 'depth'): {'features': 4},
    ('sgd', 'depth'): {'features': 4},
}


@pytest.mark.parametrize('config', in_turn.slow_but((ADAMW,), (ADAMW, SGD, SGD_CLIPPED)),
                         ids=['adamw', 'sgd', 'sgd clipped'])
@pytest.mark.parametrize('larger', [dict(width=256), dict(depth=32)], ids=['width', 'depth'])
def test_coordinate_check(config, larger):
  """Training changes features and logits as much at eight times the width or depth (Yang et al. 2022, app. D.1)."""
  base, mup = _coordinates(config), _coordinates(config, MUP, **larger)
  for name in base:
    assert 0.5 < mup[name] / base[name] < 2, (name, base, mup)
  if config.clip_norm is None or config.name == 'adamw':
    standard = _coordinates(config, **larger)
    for name, least in DRIFTS[config.name, next(iter(larger))].items():
      assert standard[name] / base[name] > least, (name, base, standard)


def _table(name, m, l, sgd):
  """(multiplier, initial deviation relative to the standard model's of this size, learning rate, epsilon).

  Yang et al. 2022, table 8, and Dey et al. 2025, table 1 (alpha = 1), typed by parameter: an independent reading.
  """
  block, end = 'blocks' in name, 'down' in name or 'out' in name
  depth = l if block else 1
  multiplier = 1 / l if block and end else 1
  if name == 'head.kernel':
    return 1 / m, np.sqrt(m), m if sgd else 1, 1 / m
  if name == 'head.bias':
    return 1, 1, 1, 1
  if name == 'pos_embed':
    return 1, np.sqrt(m), m if sgd else 1, 1 / m
  hidden = block and name.endswith('kernel')
  if sgd:
    return multiplier, 1, (1 if hidden else m) * depth, 1
  return multiplier, 1, 1 / m if hidden else 1, 1 / m / depth


@pytest.mark.parametrize('name', in_turn.slow_but(('adamw',), ('adamw', 'sgd')))
def test_equals_the_form_in_the_papers(name):
  """Compared with multipliers in the forward pass and optax's optimizers with the table's settings per parameter."""
  config = OptimizerConfig(name, learning_rate=0.02, weight_decay=0.1, clip_norm=None, epsilon=1e-3)
  model, params, gradients = _sized(width=128, depth=8)
  params = dict(params, head=dict(params['head']))
  factors = parametrisation_lib.factors(MUP, name, model)
  # A head that is not zero, so that initial deviations can be compared.
  params['head']['kernel'] = 0.1 * jax.random.normal(_key(), params['head']['kernel'].shape)
  ours = parametrisation_lib.initial(params, factors)
  state_of = optimizer.transformation(config).init(ours)
  step = jax.jit(lambda *state: optimizer.step(config, *state, jnp.float32(0.02), jnp.float32(0.1), factors))

  names = jax.tree_util.tree_map_with_path(lambda path, _: '.'.join(key.key for key in path), params)
  table = {n: _table(n, 128 / 32, 8 / 4, name == 'sgd') for n in jax.tree.leaves(names)}
  column = lambda i: jax.tree.map(lambda n: float(table[n][i]), names)
  multiplied = lambda v: jax.tree.map(lambda v, s: v * s, v, column(0))

  def peer(n):
    _, _, rate, epsilon = table[n]
    decay = 0.1 / rate if n.endswith('kernel') else 0.0
    if name == 'adamw':
      return optax.adamw(0.02 * rate, eps=1e-3 * epsilon, weight_decay=decay)
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(0.02 * rate, momentum=0.9))

  tx = optax.multi_transform({n: peer(n) for n in table}, names)
  theirs = jax.tree.map(lambda p, s: p * s, params, column(1))
  their_state = tx.init(theirs)

  @jax.jit
  def their_step(grads, their_state, theirs):
    with jax.numpy_dtype_promotion('standard'):  # optax itself promotes
      updates, their_state = tx.update(grads, their_state, theirs)
    return optax.apply_updates(theirs, updates), their_state

  for _ in range(3):
    theirs, their_state = their_step(multiplied(gradients(multiplied(theirs))[0]), their_state, theirs)
    ours, state_of = step(gradients(ours)[0], state_of, ours)
  for n, a, b, start in zip(jax.tree.leaves(names), jax.tree.leaves(ours), jax.tree.leaves(multiplied(theirs)),
                            jax.tree.leaves(parametrisation_lib.initial(params, factors))):
    moved = np.abs(np.asarray(b) - start).max()
    assert moved > 0, n
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2 * moved, err_msg=n)


def _train(parametrisation, optimizer, mesh=(1, 1, 1)):
  """The state, on the host, after three training steps from a head that is not zero."""
  model = _model(16, 2)
  config = RunConfig(parametrisation=parametrisation, optimizer=optimizer, schedule=ScheduleConfig('constant'))
  mesh = make_mesh(MeshConfig(*mesh), jax.devices()[:int(np.prod(mesh))])
  step = jax.jit(make_train_step(model, config, 100, lambda key, images, targets_BC, weight_B: (images, targets_BC)))
  with jax.default_prng_impl('rbg'):  # compiles faster; its values depend on the mesh, so they are drawn on one
    train_state = jax.jit(lambda: state.init(model, config, state.hparams(optimizer, 0)))()
    head = train_state.params['head']
    head['kernel'] = 0.1 * jax.random.normal(_key(), head['kernel'].shape)
    train_state = jax.device_put(train_state, state.placed(model, train_state, mesh))
    batch = jax.device_put(_batch(), sharding(mesh, 'batch'))
    for _ in range(3):
      train_state, _ = step(train_state, batch)
    return jax.device_get(train_state)


@pytest.mark.parametrize('name', in_turn.slow_but(('adamw',), ('adamw', 'sgd')))
def test_at_the_base_it_is_the_standard_parametrisation_bit_for_bit(name):
  """Checkpoints also have the same names and shapes."""
  config = OptimizerConfig(name, learning_rate=0.02, weight_decay=0.1, clip_norm=0.5)
  standard, mup = (_train(p, config) for p in (STANDARD, ParametrisationConfig('mup', base_width=16, base_depth=2)))
  assert jax.tree.structure(state.to_plain(standard)) == jax.tree.structure(state.to_plain(mup))
  jax.tree.map(np.testing.assert_array_equal, standard, mup)


@pytest.mark.slow
def test_it_does_not_depend_on_the_mesh():
  base = ParametrisationConfig('mup', base_width=4, base_depth=1)
  # The larger epsilon keeps Adam from amplifying rounding errors where a gradient is zero (the bias of the keys).
  config = OptimizerConfig(learning_rate=0.02, weight_decay=0.1, epsilon=1e-3)
  alone, together = (_train(base, config, mesh).params for mesh in ((1, 1, 1), (2, 2, 2)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), alone, together)


def test_it_does_not_depend_on_how_the_stack_is_executed():
  scanned, unrolled = (parametrisation_lib.factors(MUP, 'adamw', _model(128, 8, Execution(scan=scan)))
                       for scan in (True, False))
  assert scanned == unrolled


@pytest.mark.parametrize('config, optimizer, message', [
    (ParametrisationConfig('mup'), 'adamw', r'give parametrisation\.base_width, parametrisation\.base_depth or both'),
    (ParametrisationConfig('mup', base_depth=2), 'lion', r"optimizer\.name='lion'.*adamw and sgd only"),
    (ParametrisationConfig(base_depth=2), 'adamw', r'parametrisation\.base_depth=2: only .*mup reads it'),
])
def test_configs_without_a_rule_are_refused(config, optimizer, message):
  with pytest.raises(UserError, match=message):
    parametrisation_lib.factors(config, optimizer, _model())


@pytest.mark.parametrize('fields, parametrisation, message', [
    (dict(depths=(1,), widths=(8,)), MUP, r'neither model\.width nor model\.depth .* parametrisation\.name=standard'),
    (dict(depth=1), MUP, r'base_width=32: this model family has no model\.width'),
    (dict(width=8), ParametrisationConfig('mup', base_depth=4), r'base_depth=4: this model family has no model\.depth'),
])
def test_a_family_without_a_width_or_a_depth_is_refused(fields, parametrisation, message):
  model = _model()
  model.config = dataclasses.make_dataclass('Config', fields)(**fields)
  with pytest.raises(UserError, match=message):
    parametrisation_lib.factors(parametrisation, 'adamw', model)


def test_what_does_not_grow_with_the_width_keeps_the_factors_of_the_base():
  """The stages of a ResNet stem are as wide in a wide model as in a narrow one: only their projection has an end that
  grows."""
  config = vit.Config(patch_size=4, width=128, depth=2, mlp_dim=256, num_heads=4, stem='resnet', stem_depths=(1,),
                      stem_width=16)
  model = PureModel('vit', config, SHAPE, CLASSES)
  factors = parametrisation_lib.factors(ParametrisationConfig('mup', base_width=32), 'adamw', model)
  stem, flat = factors['patch_embed'], {}
  jax.tree_util.tree_map_with_path(lambda path, f: flat.update({jax.tree_util.keystr(path): f}), stem)
  ones = [name for name, f in flat.items() if f == parametrisation_lib.Factors(1.0, 1.0, 1.0, 1.0)]
  assert len(flat) - len(ones) == 2 and len(ones) > 8  # the projection's kernel and bias
  assert factors['encoder']['blocks']['mlp']['up']['kernel'].learning_rate == 1 / 4


def test_an_mlp_that_does_not_grow_is_told_apart():
  model = _model(width=128)  # mlp_dim 256
  assert parametrisation_lib.factors(ParametrisationConfig('mup', base_width=32, base_mlp_dim=64), 'adamw', model) == (
      parametrisation_lib.factors(ParametrisationConfig('mup', base_width=32), 'adamw', model))
  fixed = parametrisation_lib.factors(ParametrisationConfig('mup', base_width=32, base_mlp_dim=256), 'adamw', model)
  mlp = fixed['encoder']['blocks']['mlp']
  assert mlp['up']['kernel'].learning_rate == 1 / 4  # as an output kernel: a multiplier of 1/m, folded
  assert mlp['down']['kernel'].learning_rate == 1.0 and mlp['down']['kernel'].epsilon == 1 / 4  # as an input kernel
  assert mlp['up']['bias'] == parametrisation_lib.Factors(1.0, 1.0, 1.0, 1.0)
  with pytest.raises(UserError, match='model.mlp_dim=256 is 2 times parametrisation.base_mlp_dim=128'):
    parametrisation_lib.factors(ParametrisationConfig('mup', base_width=32, base_mlp_dim=128), 'adamw', model)
