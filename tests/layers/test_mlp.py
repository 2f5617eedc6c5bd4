import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from vit_jax.layers.mlp import gelu


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_exact_gelu_is_exact_in_every_type(dtype):
  """The value is x Phi(x) rounded to the type, also far out on the negative side, where 1 + erf would cancel."""
  x = jnp.linspace(-6, 6, 4001).astype(dtype)
  exact = np.asarray(x, np.float64) * scipy.special.ndtr(np.asarray(x, np.float64))
  ours = np.asarray(gelu(x), np.float64)
  np.testing.assert_allclose(ours, exact, rtol=float(jnp.finfo(dtype).eps), atol=7e-7)
  tail = (np.asarray(x, np.float32) > -4) & (np.asarray(x, np.float32) < -3)
  assert np.all(ours[tail] < 0)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_its_gradient_is_that_of_the_value(dtype):
  x = jnp.linspace(-5, 5, 101).astype(dtype)
  ours = jax.vmap(jax.grad(lambda x: gelu(x).astype(jnp.float32)))(x)
  at = np.asarray(x, np.float64)
  exact = scipy.special.ndtr(at) + at * np.exp(-at * at / 2) / np.sqrt(2 * np.pi)
  assert ours.dtype == dtype
  np.testing.assert_allclose(np.asarray(ours, np.float64), exact, rtol=float(jnp.finfo(dtype).eps), atol=2e-6)
