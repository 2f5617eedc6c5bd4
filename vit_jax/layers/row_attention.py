"""Softmax attention over few tokens by a Pallas kernel for TPUs: whole rows of logits lie near the cores.

A picture has few tokens, so that the logits [T, T] of a head fit there at once. They never reach the large memory, and
the backward pass computes them again from queries and keys, which are all that it reads besides the values and the
gradient. Heads are read as the projections write them, from [B, T, H*K] each, or from the product of all three: no
array is transposed or taken apart, and none is padded to a multiple of 128 tokens or to heads of 128. Compare
`layers.splash`, which goes over the tokens in blocks (Dao et al. 2022) and is for more tokens than this.
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
  return _by_rows((q_BTHK, k_BTHK, v_BTHK), base_head_dim)


def of_product(qkv_BTHEK: jax.Array, base_head_dim: int | None = None) -> jax.Array:
  """`row_attention` of queries, keys and values [B, T, H, 3, K] as one product writes them: it takes them apart."""
  return _by_rows((qkv_BTHEK,), base_head_dim)


def _by_rows(qkv, base_head_dim):
  part, (batch, tokens, heads, *_, head_dim) = spec('batch', None, 'heads'), qkv[0].shape
  scale = logit_scale(head_dim, base_head_dim)
  flat = tuple(x.reshape(batch, tokens, -1) for x in qkv)
  # A kernel does not say over which axes its results vary, so that cannot be checked.
  y_BTD = jax.shard_map(lambda *qkv: by_kernel(qkv, head_dim, scale, False), in_specs=(part,) * len(flat),
                        out_specs=part, check_vma=False)(*flat)
  return y_BTD.reshape(batch, tokens, heads, head_dim)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def by_kernel(qkv: tuple[jax.Array, ...], head_dim: int, scale: float, interpret: bool) -> jax.Array:
  """Attention [B, T, H*K] of one device.

  Args:
    qkv: queries, keys and values [B, T, H*K]; or one array [B, T, H*3*K] of them all, head by head.
    head_dim: K.
    scale: of the logits.
    interpret: without a TPU, slowly.
  """
  return _call(_forward, qkv, (), head_dim, scale, interpret)[0]


def _vjp_forward(qkv, *static):
  return by_kernel(qkv, *static), qkv


def _vjp_backward(head_dim, scale, interpret, qkv, gradient_BTD):
  return (tuple(_call(_backward, qkv, (gradient_BTD,), head_dim, scale, interpret)),)


by_kernel.defvjp(_vjp_forward, _vjp_backward)


def _lanes(heads, head_dim):
  """How many channels one call of the kernel has: whole heads that fill whole tiles, or all."""
  lanes = math.lcm(head_dim, _LANES)
  return heads * head_dim if heads * head_dim % lanes else lanes


def _call(kernel, qkv, gradients, head_dim, scale, interpret):
  """The kernel's results: the gradients of `qkv` where it is given that of the result, else the result."""
  from jax.experimental import pallas as pl
  from jax.experimental.pallas import tpu
  (batch, tokens, _), dtype, parts = qkv[0].shape, qkv[0].dtype, 3 // len(qkv)
  width = qkv[0].shape[2] // parts
  lanes = _lanes(width // head_dim, head_dim)
  block = lambda parts: pl.BlockSpec((1, tokens, parts * lanes), lambda row, part: (row, 0, part))
  inputs = [block(parts)] * len(qkv) + [block(1)] * len(gradients)
  results = [parts] * len(qkv) if gradients else [1]
  arrays, products = 4 + 3 * len(gradients), 5 if gradients else 2
  cost = pl.CostEstimate(flops=products * 2 * batch * width * tokens**2, bytes_accessed=arrays * (
      batch * tokens * width * dtype.itemsize), transcendentals=batch * width // head_dim * tokens**2)
  return pl.pallas_call(
      functools.partial(kernel, head_dim=head_dim, scale=scale), grid=(batch, width // lanes), in_specs=inputs,
      out_specs=[block(parts) for parts in results], cost_estimate=cost, interpret=interpret,
      out_shape=[jax.ShapeDtypeStruct((batch, tokens, parts * width), dtype) for parts in results],
      compiler_params=tpu.CompilerParams(dimension_semantics=('parallel', 'parallel')))(*qkv, *gradients)


def _forward(*refs, head_dim, scale):
  *qkv, y_ref = refs
  for at, places in _heads(qkv, head_dim):
    q_TK, k_TK, v_TK = (ref[place] for ref, place in places)
    weights_TT = _weights(q_TK * jnp.asarray(scale, q_TK.dtype), k_TK).astype(v_TK.dtype)
    y_ref[at] = _product(weights_TT, v_TK).astype(y_ref.dtype)


def _backward(*refs, head_dim, scale):
  """Vaswani et al. 2017, eq. 1, differentiated. With W = softmax(L): dL = W (dW - sum(W dW))."""
  arrays = len(refs) // 2
  qkv, dy_ref, gradients = refs[:arrays], refs[arrays], refs[arrays + 1:]
  for (at, places), (_, results) in zip(_heads(qkv, head_dim), _heads(gradients, head_dim), strict=True):
    q_TK, k_TK, v_TK = (ref[place] for ref, place in places)
    dy_TK = dy_ref[at]
    dtype, scaled_TK = q_TK.dtype, q_TK * jnp.asarray(scale, q_TK.dtype)
    weights_TT = _weights(scaled_TK, k_TK)
    dweights_TT = _product(dy_TK, v_TK, 1, 1)
    mean_T1 = jnp.sum(weights_TT * dweights_TT, axis=-1, keepdims=True)
    dlogits_TT = (weights_TT * (dweights_TT - mean_T1)).astype(dtype)
    for (ref, place), gradient_TK in zip(results, (
        _product(dlogits_TT, k_TK) * scale, _product(dlogits_TT, scaled_TK, 0, 0),
        _product(weights_TT.astype(dtype), dy_TK, 0, 0)), strict=True):
      ref[place] = gradient_TK.astype(dtype)


def _heads(refs, head_dim):
  """[(the place of a head's result, [(ref, place) of its queries, keys and values])] of a block's heads."""
  place = lambda at: (0, slice(None), slice(at * head_dim, (at + 1) * head_dim))
  if len(refs) == 1:
    heads = refs[0].shape[2] // (3 * head_dim)
    return [(place(at), [(refs[0], place(3 * at + part)) for part in range(3)]) for at in range(heads)]
  return [(place(at), [(ref, place(at)) for ref in refs]) for at in range(refs[0].shape[2] // head_dim)]


def _weights(q_TK, k_TK):
  logits_TT = _product(q_TK, k_TK, 1, 1)
  exp_TT = jnp.exp(logits_TT - jnp.max(logits_TT, axis=-1, keepdims=True))
  return exp_TT / jnp.sum(exp_TT, axis=-1, keepdims=True)


def _product(a, b, axis_a=1, axis_b=0):
  """The product of two matrices over these axes, in float32."""
  return jax.lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())), preferred_element_type=jnp.float32)
