"""Softmax attention over few tokens by a Pallas kernel for TPUs: whole rows of logits lie near the cores.

A picture has few tokens, so that the logits [T, T] of a head fit there at once. They never reach the large memory, and
the backward pass computes them again from queries and keys, which are all that it reads besides the values and the
gradient. Heads are read from [B, T, H*K], as the projections write them: no array is transposed, and none is padded
to a multiple of 128 tokens or to heads of 128. Compare `layers.splash`, which goes over the tokens in blocks (Dao et
al. 2022) and is for more tokens than this.
"""

import functools
import math

import jax
import jax.numpy as jnp

from vit_jax.layers.attention import logit_scale
from vit_jax.parallel.rules import spec

_LANES = 128  # the last side of a tile
_NEAR_BYTES = 13 * 2**20  # that may be used of the 16 MiB near a core that a kernel has by default
_ROWS = 6  # arrays [T, T] in float32 that the backward pass holds of a head
_BLOCKS = 14  # arrays [T, lanes] in bfloat16: three inputs and results each and a gradient, while the next are read


def limits(request) -> str | None:
  """See `layers.kernels.Kernel`."""
  if request.dtype != 'bfloat16':
    return f'is for model.dtype=bfloat16, not for {request.dtype}'
  if near_bytes(request.tokens, request.heads, request.head_dim) > _NEAR_BYTES:
    return f'holds whole rows of logits near a core, for which {request.tokens:,} tokens are too many'
  return None


def near_bytes(tokens: int, heads: int, head_dim: int) -> int:
  """An estimate of the bytes near a core that the backward pass needs; from above for compiled kernels."""
  padded = lambda size: -(-size // _LANES) * _LANES
  return _ROWS * 4 * tokens * padded(tokens) + _BLOCKS * 2 * tokens * padded(_lanes(heads, head_dim))


def row_attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array,
                  base_head_dim: int | None = None) -> jax.Array:
  """`attention.attend` without a bias, and without the weights: [B, T, H, K]; to be traced for a mesh of TPUs."""
  part, head_dim = spec('batch', None, 'heads'), q_BTHK.shape[3]
  scale = logit_scale(head_dim, base_head_dim)
  flat = (x.reshape(*x.shape[:2], -1) for x in (q_BTHK, k_BTHK, v_BTHK))
  # A kernel does not say over which axes its results vary, so that cannot be checked.
  y_BTD = jax.shard_map(lambda *qkv: by_kernel(*qkv, head_dim, scale, False), in_specs=(part,) * 3, out_specs=part,
                        check_vma=False)(*flat)
  return y_BTD.reshape(q_BTHK.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def by_kernel(q_BTD: jax.Array, k_BTD: jax.Array, v_BTD: jax.Array, head_dim: int, scale: float,
              interpret: bool) -> jax.Array:
  """Attention [B, T, H*K] of one device. `interpret`: without a TPU, slowly."""
  return _call(_forward, 1, (q_BTD, k_BTD, v_BTD), head_dim, scale, interpret)[0]


def _vjp_forward(q_BTD, k_BTD, v_BTD, *static):
  return by_kernel(q_BTD, k_BTD, v_BTD, *static), (q_BTD, k_BTD, v_BTD)


def _vjp_backward(head_dim, scale, interpret, kept, gradient_BTD):
  return tuple(_call(_backward, 3, (*kept, gradient_BTD), head_dim, scale, interpret))


by_kernel.defvjp(_vjp_forward, _vjp_backward)


def _lanes(heads, head_dim):
  """How many channels one call of the kernel has: whole heads that fill whole tiles, or all."""
  lanes = math.lcm(head_dim, _LANES)
  return heads * head_dim if heads * head_dim % lanes else lanes


def _call(kernel, results, arrays, head_dim, scale, interpret):
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import tpu
  batch, tokens, width = arrays[0].shape
  lanes, dtype = _lanes(width // head_dim, head_dim), arrays[0].dtype
  block = pl.BlockSpec((1, tokens, lanes), lambda row, part: (row, 0, part))
  products = 2 if results == 1 else 5
  cost = pl.CostEstimate(flops=products * 2 * batch * width * tokens**2, bytes_accessed=(len(arrays) + results) * (
      batch * tokens * width * dtype.itemsize), transcendentals=batch * width // head_dim * tokens**2)
  return pl.pallas_call(
      functools.partial(kernel, head_dim=head_dim, scale=scale), grid=(batch, width // lanes),
      in_specs=[block] * len(arrays), out_specs=[block] * results,
      out_shape=[jax.ShapeDtypeStruct(arrays[0].shape, dtype)] * results, cost_estimate=cost, interpret=interpret,
      compiler_params=tpu.CompilerParams(dimension_semantics=('parallel', 'parallel')))(*arrays)


def _forward(q_ref, k_ref, v_ref, y_ref, *, head_dim, scale):
  for head in _heads(q_ref, head_dim):
    q_TK, k_TK, v_TK = (ref[head] for ref in (q_ref, k_ref, v_ref))
    weights_TT = _weights(q_TK * jnp.asarray(scale, q_TK.dtype), k_TK).astype(v_TK.dtype)
    y_ref[head] = _product(weights_TT, v_TK).astype(y_ref.dtype)


def _backward(q_ref, k_ref, v_ref, dy_ref, dq_ref, dk_ref, dv_ref, *, head_dim, scale):
  """Vaswani et al. 2017, eq. 1, differentiated. With W = softmax(L): dL = W (dW - sum(W dW))."""
  for head in _heads(q_ref, head_dim):
    q_TK, k_TK, v_TK, dy_TK = (ref[head] for ref in (q_ref, k_ref, v_ref, dy_ref))
    dtype, scaled_TK = q_TK.dtype, q_TK * jnp.asarray(scale, q_TK.dtype)
    weights_TT = _weights(scaled_TK, k_TK)
    dweights_TT = _product(dy_TK, v_TK, 1, 1)
    mean_T1 = jnp.sum(weights_TT * dweights_TT, axis=-1, keepdims=True)
    dlogits_TT = (weights_TT * (dweights_TT - mean_T1)).astype(dtype)
    dv_ref[head] = _product(weights_TT.astype(dtype), dy_TK, 0, 0).astype(dtype)
    dq_ref[head] = (_product(dlogits_TT, k_TK) * scale).astype(dtype)
    dk_ref[head] = _product(dlogits_TT, scaled_TK, 0, 0).astype(dtype)


def _heads(ref, head_dim):
  """The places of a block's heads."""
  return [(0, slice(None), slice(at, at + head_dim)) for at in range(0, ref.shape[2], head_dim)]


def _weights(q_TK, k_TK):
  logits_TT = _product(q_TK, k_TK, 1, 1)
  exp_TT = jnp.exp(logits_TT - jnp.max(logits_TT, axis=-1, keepdims=True))
  return exp_TT / jnp.sum(exp_TT, axis=-1, keepdims=True)


def _product(a, b, axis_a=1, axis_b=0):
  """The product of two matrices over these axes, in float32."""
  return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)
