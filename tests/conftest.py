"""Tests run on eight fake CPU devices, and any silent promotion of types or ranks is an error."""

import jax
import pytest

from vit_jax import config as config_lib

jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_numpy_dtype_promotion', 'strict')
jax.config.update('jax_numpy_rank_promotion', 'raise')


@pytest.fixture
def tiny_config():
  """A recipe that compiles in a second or two: 16 steps of a two-layer ViT on the digits."""
  c = config_lib.defaults('vit')
  c.model.patch_size, c.model.pool = 4, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 16, 2, 32, 8
  c.data.batch_size = 32
  c.train.steps = 16
  c.optimizer.learning_rate = 1e-2
  c.evaluate.every, c.system.log_every = 4, 2
  return c
