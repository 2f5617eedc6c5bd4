"""Multi-head self-attention and attention pooling."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from vit_jax.layers import pos_embed
from vit_jax.layers.dense import Dense, Initializer, parameter, xavier_uniform
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import LayerNorm
from vit_jax.layers.stack import ATTENDED
from vit_jax.parallel.mesh import constrain, split_parts


def logit_scale(head_dim: int, base_head_dim: int | None = None) -> float:
  """1 / sqrt(K) (Vaswani et al. 2017, eq. 1), or 1 / K (Yang et al. 2022, def. 4.1), equal to it at the base.

  The second is for models whose heads widen: trained queries and keys correlate, so their products grow as K.
  """
  return math.sqrt((base_head_dim or head_dim) / head_dim) / math.sqrt(head_dim)


def attend(q_BTHK: jax.Array, k_BSHK: jax.Array, v_BSHK: jax.Array, base_head_dim: int | None = None,
           bias_WHTS: jax.Array | None = None, queries: int | None = None) -> tuple[jax.Array, jax.Array]:
  """Softmax attention (Vaswani et al. 2017, eq. 1): ([B, T, H, K], weights [B, H, T, S]); softmax in float32.

  Heads are moved to the front first, so that both products are plain batched matmuls. Weights that nothing uses are
  not kept by the compiler. Logits are written in the type of q and k, since they are most of what is moved. A bias
  [W, H or 1, T, S], float32, is added to the logits of each W sequences in turn.
  `queries`: only so many of the first queries are computed.
  """
  bias_WHTS = None if bias_WHTS is None else bias_WHTS[:, :, :queries]
  q_BTHK = q_BTHK[:, :queries]
  scale = jnp.asarray(logit_scale(q_BTHK.shape[-1], base_head_dim), q_BTHK.dtype)
  by_heads = lambda x: constrain(x, 'batch', 'heads')  # and so are the gradients, which may else be split by tokens
  q_BHTK, k_BHSK, v_BHSK = (by_heads(jnp.swapaxes(x, 1, 2)) for x in (q_BTHK * scale, k_BSHK, v_BSHK))
  logits_BHTS = by_heads(jnp.einsum('bhtk,bhsk->bhts', q_BHTK, k_BHSK))
  if bias_WHTS is not None:
    by_turns = logits_BHTS.reshape(-1, len(bias_WHTS), *logits_BHTS.shape[1:])
    logits_BHTS = by_heads((by_turns + bias_WHTS[None].astype(by_turns.dtype)).reshape(logits_BHTS.shape))
  weights_BHTS = checkpoint_name(softmax(logits_BHTS, v_BSHK.dtype), ATTENDED)
  y_BHTK = checkpoint_name(by_heads(jnp.einsum('bhts,bhsk->bhtk', weights_BHTS, v_BHSK)), ATTENDED)
  return jnp.swapaxes(y_BHTK, 1, 2), weights_BHTS


def causal_attend(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, base_head_dim: int | None = None,
                  bias_WHTT: jax.Array | None = None, queries: int | None = None) -> tuple[jax.Array, jax.Array]:
  """`attend`, in which each token sees itself and the tokens before it."""
  assert bias_WHTT is None, 'no causal model has biases'
  tokens = q_BTHK.shape[1]
  hidden_11TT = jnp.where(jnp.tri(tokens, dtype=bool), 0.0, -1e9)[None, None]  # exp of which is 0
  return attend(q_BTHK, k_BTHK, v_BTHK, base_head_dim, hidden_11TT, queries)


def softmax(logits: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Softmax over the last axis, in float32; only the result, in `dtype`, is kept for the backward pass."""
  if dtype == jnp.float32:
    return jax.nn.softmax(logits, axis=-1)
  return _softmax(logits, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _softmax(logits, dtype):
  return jax.nn.softmax(logits.astype(jnp.float32), axis=-1).astype(dtype)


def _softmax_forward(logits, dtype):
  weights = _softmax(logits, dtype)
  return weights, (weights, jnp.zeros((), logits.dtype))


def _softmax_backward(dtype, kept, gradient):
  weights, logits = kept
  product = weights.astype(jnp.float32) * gradient.astype(jnp.float32)
  dlogits = product - weights.astype(jnp.float32) * jnp.sum(product, axis=-1, keepdims=True)
  return (dlogits.astype(logits.dtype),)


_softmax.defvjp(_softmax_forward, _softmax_backward)


def unit(x: jax.Array) -> jax.Array:
  """float32 vectors [..., K] of length 1 with the directions of x."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))


@dataclasses.dataclass(frozen=True)
class OfProduct:
  """An `attend` that can also read queries, keys and values where the product that makes them has written them.

  Attributes:
    attend: has the signature of this module's `attend`.
    of_product: (qkv [B, T, H, 3, K], base_head_dim) -> y [B, T, H, K].
  """
  attend: Callable
  of_product: Callable[[jax.Array, int | None], jax.Array]

  def __call__(self, *args):
    return self.attend(*args)


class SelfAttention(nnx.Module):
  """Queries, keys and values from one fused kernel [D, H, 3, K], attention, and the output projection."""

  def __init__(self, width: int, num_heads: int, *, rngs: nnx.Rngs, head_dim: int | None = None, qkv_bias: bool = True,
               qk_norm: bool = False, cosine: bool = False, epsilon: float = 1e-6, base_head_dim: int | None = None,
               relative_grid: tuple[int, int] | None = None, rope_grid: tuple[int, int] | None = None,
               rope: str = 'rope2d', rope_theta: float = 100.0, kernel_init: Initializer = xavier_uniform,
               dtype=jnp.float32):
    """`head_dim` is width / num_heads unless it is given.

    With `qk_norm` the queries and keys of each head are normalised (Dehghani et al. 2023, sec. 2); epsilon is theirs.
    With `cosine` logits are cosines times a learned number of each head, from 10 at the start to at most 100 (Swin V2:
    Liu et al. 2022b, eq. 2). They are float32: bfloat16 has steps of 0.5 at 100.

    The last tokens are a grid's patches: with `relative_grid` each head learns biases of their relative places, and
    with `rope_grid` queries and keys are turned by their places: by the angles `rope` of `pos_embed.ANGLES`, for
    `rope_theta`.
    """
    head_dim, self.base_head_dim = head_dim or width // num_heads, base_head_dim
    self.qkv = Dense((width,), (num_heads, 3, head_dim), ('embed', 'heads', None, None), rngs=rngs,
                     apart=-2, kernel_init=kernel_init, use_bias=qkv_bias, dtype=dtype)
    self.out = Dense((num_heads, head_dim), (width,), ('heads', None, 'embed'), rngs=rngs, ends_branch=True,
                     kernel_init=kernel_init, dtype=dtype)
    norm = lambda: LayerNorm(head_dim, axis=None, dtype=dtype, epsilon=epsilon) if qk_norm else None
    self.query_norm, self.key_norm = norm(), norm()
    self.log_scale = parameter(jnp.full(num_heads, math.log(10), jnp.float32), ('heads',)) if cosine else None
    self.head_dim, self.relative_grid, self.rope_grid = head_dim, relative_grid, rope_grid
    self.rope, self.rope_theta = rope, rope_theta
    self.bias_table = pos_embed.relative_table(relative_grid, num_heads, rngs=rngs) if relative_grid else None

  def __call__(self, x_BTD: jax.Array, bias_WHTT: jax.Array | None = None, attend: Callable = attend,
               queries: int | None = None) -> tuple[jax.Array, jax.Array | None]:
    """[B, T, D] -> [B, Q, D] and the attention weights [B, H, Q, T], for the first Q = `queries` tokens or for all.

    `attend` computes it and has the signature of this module's `attend`. The weights are None where it has none.
    """
    acting = self.query_norm, self.log_scale, self.rope_grid, self.bias_table, bias_WHTT
    every = queries is None or queries >= x_BTD.shape[1]
    whole = split_parts('embed') == split_parts('heads') == 1  # where it was measured (experiments/speed)
    if isinstance(attend, OfProduct) and whole and every and all(between is None for between in acting):
      qkv_BTHEK = constrain(self.qkv(x_BTD, flat=True), 'batch', None, 'heads')
      return self.out(attend.of_product(qkv_BTHEK, self.base_head_dim), flat=True), None
    q_BTHK, k_BTHK, v_BTHK = (constrain(x, 'batch', None, 'heads') for x in self.qkv.each(x_BTD))
    if self.query_norm is not None:
      q_BTHK, k_BTHK = self.query_norm(q_BTHK), self.key_norm(k_BTHK)
    if self.log_scale is not None:
      scale_H = jnp.exp(jnp.minimum(self.log_scale[...], math.log(100)))
      scale_H = scale_H / logit_scale(self.head_dim, self.base_head_dim)  # which `attend` multiplies with
      q_BTHK, k_BTHK = unit(q_BTHK) * scale_H[None, None, :, None], unit(k_BTHK)
    if self.rope_grid is not None:
      angles = pos_embed.ANGLES[self.rope](self.rope_grid, self.head_dim, self.rope_theta)
      q_BTHK, k_BTHK = (pos_embed.rotate(t, angles) for t in (q_BTHK, k_BTHK))
    if self.bias_table is not None:
      bias_WHTT = pos_embed.relative_bias(self.bias_table[...], self.relative_grid, x_BTD.shape[1])[None]
    y_BQHK, weights_BHQT = attend(q_BTHK, k_BTHK, v_BTHK, self.base_head_dim, bias_WHTT, queries)
    return self.out(y_BQHK), weights_BHQT


class AttentionPool(nnx.Module):
  """Multi-head attention pooling with one learned query (MAP: Lee et al. 2019; Zhai et al. 2022, sec. 3.2)."""

  def __init__(self, width: int, mlp_dim: int, num_heads: int, *, rngs: nnx.Rngs, head_dim: int | None = None,
               base_head_dim: int | None = None, dtype=jnp.float32, gelu='exact', epsilon: float = 1e-6):
    head_dim, self.base_head_dim = head_dim or width // num_heads, base_head_dim
    self.probe = parameter(xavier_uniform(rngs.params(), (1, width), 1, width), (None, 'embed'), 'input',
                           init_power=-0.5)
    self.query = Dense((width,), (num_heads, head_dim), ('embed', 'heads', None), rngs=rngs, dtype=dtype)
    self.key_value = Dense((width,), (num_heads, 2, head_dim), ('embed', 'heads', None, None), rngs=rngs,
                           apart=-2, dtype=dtype)
    self.out = Dense((num_heads, head_dim), (width,), ('heads', None, 'embed'), rngs=rngs, dtype=dtype)
    self.norm = LayerNorm(width, dtype=dtype, epsilon=epsilon)
    self.mlp = Mlp(width, mlp_dim, rngs=rngs, dtype=dtype, gelu=gelu)

  def __call__(self, x_BTD: jax.Array, bias_BT: jax.Array | None = None) -> jax.Array:
    """[B, T, D] -> [B, D]; a bias is added to the logits of each token."""
    probe_B1D = jnp.broadcast_to(self.probe[...][None], (x_BTD.shape[0], 1, x_BTD.shape[2]))
    k_BTHK, v_BTHK = self.key_value.each(x_BTD)
    bias_B11T = None if bias_BT is None else bias_BT[:, None, None]
    x_B1D = self.out(attend(self.query(probe_B1D), k_BTHK, v_BTHK, self.base_head_dim, bias_B11T)[0])
    return (x_B1D + self.mlp(self.norm(x_B1D)))[:, 0]
