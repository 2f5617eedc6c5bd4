"""The encoder's two-layer GELU MLP."""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers import noise
from vit_jax.layers.dense import Dense, tiny_normal


class Mlp(nnx.Module):
  """D -> F -> D with GELU (Hendrycks & Gimpel 2016) between; `gelu` is 'exact' (erf) or 'tanh' (approximation)."""

  def __init__(self, width: int, mlp_dim: int, *, rngs: nnx.Rngs, dropout: float = 0.0, gelu: str = 'exact',
               dtype=jnp.float32):
    self.up = Dense((width,), (mlp_dim,), ('embed', 'mlp'), rngs=rngs, bias_init=tiny_normal, dtype=dtype)
    self.down = Dense((mlp_dim,), (width,), ('mlp', 'embed'), rngs=rngs, bias_init=tiny_normal, dtype=dtype)
    self.dropout, self.approximate = dropout, gelu == 'tanh'

  def __call__(self, x_BTD: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
    h_BTF = jax.nn.gelu(self.up(x_BTD), approximate=self.approximate)
    return self.down(noise.dropout(h_BTF, self.dropout, keys_B))
