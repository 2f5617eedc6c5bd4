"""Softmax attention by cuDNN's fused kernels for NVIDIA GPUs, as `jax.nn.dot_product_attention` calls them.

The logits and weights [B, H, T, T] never reach the large memory. It has been lowered for GPUs, and has not run on one.
"""

import functools

import jax
import jax.numpy as jnp

from vit_jax.layers.attention import logit_scale
from vit_jax.parallel.rules import spec


def limits(request) -> str | None:
  """See `layers.kernels.Kernel`."""
  if request.dtype != 'bfloat16':
    return f'is for model.dtype=bfloat16, not for {request.dtype}'
  if request.head_dim % 8 or request.head_dim > 128:
    return f'needs heads of a multiple of 8 up to 128, not of {request.head_dim}'
  return None


def cudnn_attention(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array,
                    base_head_dim: int | None = None) -> jax.Array:
  """`attention.attend` without a bias, and without the weights: [B, T, H, K]; to be traced for a mesh of GPUs."""
  part = spec('batch', None, 'heads')
  local = functools.partial(by_kernel, scale=logit_scale(q_BTHK.shape[-1], base_head_dim))
  return jax.shard_map(local, in_specs=(part,) * 3, out_specs=part, check_vma=False)(q_BTHK, k_BTHK, v_BTHK)


def by_kernel(q_BTHK: jax.Array, k_BTHK: jax.Array, v_BTHK: jax.Array, scale: float,
              implementation: str = 'cudnn') -> jax.Array:
  """The same of one device.

  cuDNN's backward pass refuses an odd number of tokens. One more is then added, and lengths say that it does not count;
  there is never a mask.
  """
  tokens, lengths = q_BTHK.shape[1], {}
  if tokens % 2:
    q_BTHK, k_BTHK, v_BTHK = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (q_BTHK, k_BTHK, v_BTHK))
    lengths_B = jnp.full(len(q_BTHK), tokens, jnp.int32)
    lengths = dict(query_seq_lengths=lengths_B, key_value_seq_lengths=lengths_B)
  y_BTHK = jax.nn.dot_product_attention(q_BTHK, k_BTHK, v_BTHK, scale=scale, implementation=implementation, **lengths)
  return y_BTHK[:, :tokens]
