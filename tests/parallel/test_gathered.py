"""Products with gathered parameters: the gradients as accelerators compute them are those of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.parallel import gathered
from vit_jax.parallel.mesh import MeshConfig, make_mesh, sharding, traced_on

LOGICAL = 'embed', 'mlp'


def _gradients(rows):
  def loss(x, kernel, target):
    return jnp.sum((gathered.with_gathered(jnp.matmul, x, kernel, LOGICAL) - target) ** 2)
  keys = jax.random.split(jax.random.key(0), 3)
  operands = (jax.random.normal(keys[0], (rows, 3, 16)), jax.random.normal(keys[1], (16, 24)),
              jax.random.normal(keys[2], (rows, 3, 24)))
  return jax.grad(loss, argnums=(0, 1)), operands


@pytest.mark.parametrize('sizes', [(1, 8, 1), (2, 4, 1), (2, 2, 2), (1, 4, 2)])
@pytest.mark.parametrize('rows', [16, 1])  # 1: what is no batch, like a learned query
def test_gradients_written_out_are_those_of_one_device(monkeypatch, sizes, rows):
  monkeypatch.setattr(gathered, 'platform', lambda: 'tpu')
  grad, (x, kernel, target) = _gradients(rows)
  mesh = make_mesh(MeshConfig(*sizes))
  batch = sharding(mesh, 'batch' if rows > 1 else None)
  placed = jax.device_put((x, kernel, target), (batch, sharding(mesh, *LOGICAL), batch))
  got = jax.jit(traced_on(mesh, grad))(*placed)
  for ours, single in zip(got, grad(x, kernel, target), strict=True):
    np.testing.assert_allclose(ours, single, rtol=1e-5, atol=1e-4)
  if rows > 1:
    assert got[1].sharding.shard_shape(kernel.shape) == sharding(mesh, *LOGICAL).shard_shape(kernel.shape)


def test_a_gradient_is_scattered_before_it_is_summed(monkeypatch):
  monkeypatch.setattr(gathered, 'platform', lambda: 'tpu')
  grad, operands = _gradients(16)
  text = str(jax.make_jaxpr(traced_on(make_mesh(MeshConfig(2, 4, 1)), grad))(*operands))
  assert text.count('all_gather[') == text.count('reduce_scatter[') == text.count('psum[') == 1
  assert text.index('reduce_scatter[') < text.index('psum[')
