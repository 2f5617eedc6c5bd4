import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vit_jax.errors import UserError
from vit_jax.models import PureModel, vit
from vit_jax.training import optimizer
from vit_jax.training.optimizer import OptimizerConfig


def _params(seed):
  k1, k2 = jax.random.split(jax.random.key(seed))
  return {'layer': {'kernel': jax.random.normal(k1, (4, 3)), 'bias': jax.random.normal(k2, (3,))}}


def _run(config, grads, params, steps=5):
  state = optimizer.transformation(config).init(params)
  for _ in range(steps):
    params, state = optimizer.step(config, grads, state, params, jnp.float32(config.learning_rate),
                                   jnp.float32(config.weight_decay))
  return params


@pytest.mark.parametrize('config, peer', [
    (OptimizerConfig(learning_rate=0.01, weight_decay=0.1, clip_norm=1.0), lambda mask: optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(0.01, weight_decay=0.1, mask=mask))),
    (OptimizerConfig('sgd', learning_rate=0.01, weight_decay=0.1, clip_norm=None), lambda mask: optax.chain(
        optax.add_decayed_weights(0.1, mask), optax.sgd(0.01, momentum=0.9))),
], ids=['adamw', 'sgd'])
def test_equals_optax(config, peer):
  params, grads = _params(0), _params(1)
  ours = _run(config, grads, params)
  tx = peer(optimizer.decayed(params))
  state, theirs = tx.init(params), params
  with jax.numpy_dtype_promotion('standard'):  # optax.adamw itself promotes
    for _ in range(5):
      updates, state = tx.update(grads, state, theirs)
      theirs = optax.apply_updates(theirs, updates)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, theirs)


def test_only_kernels_decay_though_norms_are_stacked_over_layers():
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


@pytest.mark.parametrize('changes', [dict(learning_rate=-1.0), dict(weight_decay=-0.1), dict(beta2=1.0),
                                     dict(ema_decay=1.5)])
def test_values_that_cannot_be_meant(changes):
  with pytest.raises(UserError, match=f'optimizer.{next(iter(changes))}'):
    optimizer.check(OptimizerConfig(**changes))
