"""The MLP of blocks: two layers with GELU between, or gated."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers import noise
from vit_jax.layers.dense import Dense, Initializer, parameter, tiny_normal, xavier_uniform
from vit_jax.parallel.mesh import constrain


def gelu(x: jax.Array, kind: str = 'exact') -> jax.Array:
  """x Phi(x) (Hendrycks & Gimpel 2016, sec. 2), or one of its approximations in that section.

  Kinds: 'exact' (erf); 'tanh'; 'quick', x sigmoid(1.702 x), as in CLIP's code.

  jax.nn.gelu writes Phi as erfc, which is exact far out on the negative side, where the value is 0 for a network. erf
  is within 7e-7 of it and makes the exact form 1.5 times as fast on a CPU, a training step of a small ViT 1.2 times.
  It is computed in float32 whatever x is: 1 + erf is a difference, of which bfloat16 leaves nothing below -3.
  """
  if kind == 'quick':
    return x * jax.nn.sigmoid(1.702 * x)
  return jax.nn.gelu(x, approximate=True) if kind == 'tanh' else _exact_gelu(x.astype(jnp.float32)).astype(x.dtype)


@jax.custom_jvp  # JAX 0.12.0 cannot differentiate erf inside `shard_map`
def _exact_gelu(x):
  return x * _normal_cdf(x)


@_exact_gelu.defjvp
def _exact_gelu_jvp(primals, tangents):
  (x,), (t,) = primals, tangents
  cdf, density = _normal_cdf(x), jnp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
  return x * cdf, t * (cdf + x * density)


def _normal_cdf(x):
  return 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))


class ResponseNorm(nnx.Module):
  """Global response normalisation over the places of each example (Woo et al. 2023, ConvNeXt V2, eqs. 1 to 3)."""

  def __init__(self, width: int, *, dtype=jnp.float32, epsilon: float = 1e-6):
    self.scale = parameter(jnp.zeros(width, jnp.float32), ('mlp',))
    self.bias = parameter(jnp.zeros(width, jnp.float32), ('mlp',))
    self.dtype, self.epsilon = dtype, epsilon

  def __call__(self, x_BTF: jax.Array) -> jax.Array:
    x = x_BTF.astype(jnp.float32)
    size_B1F = jnp.sqrt(jnp.sum(x * x, axis=1, keepdims=True))
    share_B1F = size_B1F / (size_B1F.mean(axis=-1, keepdims=True) + self.epsilon)
    broadcast = lambda v: v[...].reshape(1, 1, -1)
    return (x + broadcast(self.scale) * (x * share_B1F) + broadcast(self.bias)).astype(self.dtype)


class Mlp(nnx.Module):
  """D -> F -> D with GELU (Hendrycks & Gimpel 2016) between, of the kind `gelu` (see the function).

  With `gated` there are two maps D -> F, and SiLU of the first gates the second (SwiGLU: Shazeer 2020, eq. 6). With
  `grn` a `ResponseNorm` follows. `axis` is the logical axis of the D inputs and outputs.
  """

  def __init__(self, width: int, mlp_dim: int, *, rngs: nnx.Rngs, axis: str | None = 'embed', dropout: float = 0.0,
               gelu: str = 'exact', gated: bool = False, grn: bool = False, kernel_init: Initializer = xavier_uniform,
               bias_init: Callable | None = tiny_normal, dtype=jnp.float32):
    init = dict(kernel_init=kernel_init, bias_init=bias_init)
    self.up = (Dense((width,), (mlp_dim, 2), (axis, 'mlp', None), rngs=rngs, apart=-1, dtype=dtype, **init) if gated
               else Dense((width,), (mlp_dim,), (axis, 'mlp'), rngs=rngs, dtype=dtype, **init))
    self.down = Dense((mlp_dim,), (width,), ('mlp', axis), rngs=rngs, ends_branch=True, dtype=dtype, **init)
    self.grn = ResponseNorm(mlp_dim, dtype=dtype) if grn else None
    self.dropout, self.gelu, self.gated = dropout, gelu, gated

  def __call__(self, x_BTD: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
    h_BTF = self.up(x_BTD)
    h_BTF = jax.nn.silu(h_BTF[..., 0]) * h_BTF[..., 1] if self.gated else gelu(h_BTF, self.gelu)
    h_BTF = constrain(h_BTF, 'batch', None, 'mlp')
    if self.grn is not None:
      h_BTF = self.grn(h_BTF)
    return self.down(noise.dropout(h_BTF, self.dropout, keys_B, last='mlp'))
