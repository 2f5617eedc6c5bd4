import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.layers.norm import BatchNorm


def test_batch_norm_normalises_by_its_batch_in_training_and_by_what_it_holds_in_evaluation():
  """Ioffe & Szegedy 2015, algorithms 1 and 2."""
  norm = BatchNorm(3, epsilon=0.1)
  norm.scale[...], norm.bias[...] = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.0, 5.0, 1.0])
  x = np.random.default_rng(0).normal([1, -2, 0], [1, 3, 0.1], (4, 5, 6, 3)).astype(np.float32)
  mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
  expected = lambda x: (x - mean) / np.sqrt(var + 0.1) * [1, 2, -1] + [0, 5, 1]
  np.testing.assert_allclose(norm(jnp.asarray(x), training=True), expected(x), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(norm.var[...], var, rtol=1e-5)
  other = 3 * x[:2]
  np.testing.assert_allclose(norm(jnp.asarray(other), training=False), expected(other), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-5, atol=1e-6)


def test_batch_norm_keeps_its_statistics_in_float32():
  """A mean of 300 with a deviation of 1 does not survive bfloat16's squares."""
  norm = BatchNorm(1, dtype=jnp.bfloat16)
  x = 300 + jax.random.normal(jax.random.key(0), (4096, 1))
  y = norm(x, training=True)
  assert y.dtype == jnp.bfloat16 and norm.var[...].dtype == jnp.float32
  np.testing.assert_allclose(norm.var[...], x.var(0), rtol=1e-3)


def test_batch_norm_declares_statistics_and_parameters_apart():
  _, params, stats = nnx.split(BatchNorm(3, zero_scale=True), nnx.Param, nnx.BatchStat)
  assert set(nnx.to_pure_dict(params)) == {'scale', 'bias'} and set(nnx.to_pure_dict(stats)) == {'mean', 'var'}
  assert not np.any(nnx.to_pure_dict(params)['scale'])
