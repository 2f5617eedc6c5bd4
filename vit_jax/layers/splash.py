"""Softmax attention by a Pallas kernel for TPUs: JAX's own splash attention (`jax.experimental.pallas.ops.tpu`).

The logits and weights [B, H, T, T] never reach the large memory. What that saves of a step, as the TPU compiler
estimates it, is in experiments/speed.
"""

import functools

import jax
import jax.numpy as jnp

from vit_jax.layers.attention import logit_scale
from vit_jax.layers.stack import ATTENDED
from vit_jax.parallel.rules import spec

_TILE = 128  # tokens: a block of the kernel is so many, or a multiple
_PAYS_FROM = 512  # tokens; with fewer its padding to whole tiles costs more than it saves
_BLOCK = 640  # at most: its square in float32 has to fit near the cores several times


def declines(request) -> str | None:
  """See `layers.kernels.Kernel`."""
  if request.dtype != 'bfloat16' or request.tokens < _PAYS_FROM:
    return f'pays from {_PAYS_FROM} tokens in bfloat16 on, not for {request.tokens} in {request.dtype}'
  return None


def splash_attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array,
                     base_head_dim: int | None = None) -> jax.Array:
  """`attention.attend` without a bias, and without the weights: [B, T, H, K]; to be traced for a mesh of TPUs."""
  part = spec('batch', 'heads')
  local = functools.partial(by_kernel, scale=logit_scale(q_BTHK.shape[-1], base_head_dim))
  # The library does not say over which axes its results vary, so that cannot be checked.
  on_each = jax.shard_map(local, in_specs=(part,) * 3, out_specs=part, check_vma=False)
  y_BHTK = on_each(*(jnp.swapaxes(x, 1, 2) for x in (q_BTHK, k_BTHK, v_BTHK)))
  return jnp.swapaxes(y_BHTK, 1, 2)


def by_kernel(q_BHTK: jax.Array, k_BHTK: jax.Array, v_BHTK: jax.Array, scale: float,
              interpret: bool = False) -> jax.Array:
  """softmax(scale q k^T) v of one device's sequences and heads: [B, H, T, K]; softmax in float32.

  Tokens that fill up the last block are a segment of their own, which no other token sees. `interpret` runs the kernel
  anywhere, slowly.
  """
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as lib
  from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
  heads, tokens = q_BHTK.shape[1:3]
  # Few blocks: for each block of queries all keys and values are read.
  count = -(-tokens // _BLOCK)
  block = -(-tokens // (count * _TILE)) * _TILE
  whole = count * block
  q_BHTK, k_BHTK, v_BHTK = (jnp.pad(x, ((0, 0), (0, 0), (0, whole - tokens), (0, 0)))
                            for x in (q_BHTK * jnp.asarray(scale, q_BHTK.dtype), k_BHTK, v_BHTK))
  # Heads of 64 would fill half of a row of 128 lanes, so tokens are along the lanes.
  layouts = {f'{name}_layout': lib.QKVLayout.SEQ_MINOR for name in 'qkv'}
  sizes = lib.BlockSizes(block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block,
                         use_fused_bwd_kernel=True, **layouts)
  kernel = lib.make_splash_mha(masks.MultiHeadMask([masks.FullMask((whole, whole))] * heads), block_sizes=sizes,
                               head_shards=1, q_seq_shards=1, interpret=interpret,
                               residual_checkpoint_name=ATTENDED)
  is_padding_T = (jnp.arange(whole) >= tokens).astype(jnp.int32)
  segments = lib.SegmentIds(is_padding_T, is_padding_T) if whole > tokens else None
  return jax.vmap(lambda *qkv: kernel(*qkv, segment_ids=segments))(q_BHTK, k_BHTK, v_BHTK)[:, :, :tokens]
