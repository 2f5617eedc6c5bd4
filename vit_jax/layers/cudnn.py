"""Softmax attention by cuDNN's fused kernels for NVIDIA GPUs, as `jax.nn.dot_product_attention` calls them.

The logits and weights [B, H, T, T] never reach the large memory. It has been lowered for GPUs, and has not run on one.
"""

import functools

import jax
import jax.numpy as jnp

from vit_jax.layers.attention import logit_scale
from vit_jax.parallel import mesh as mesh_lib
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
  if mesh_lib.is_absent():
    return _stand_in(q_BTHK, k_BTHK, v_BTHK)
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


@jax.custom_vjp
def _stand_in(q_BTHK, k_BTHK, v_BTHK):
  """Something of the same shapes, to be traced where JAX finds no cuDNN."""
  return q_BTHK + 0 * (k_BTHK + v_BTHK)


def _stand_in_forward(q_BTHK, k_BTHK, v_BTHK):
  """Keeps for the backward pass what cuDNN's kernel does: its operands, its result, and a float32 of each row."""
  y_BTHK = _stand_in(q_BTHK, k_BTHK, v_BTHK)
  return y_BTHK, (q_BTHK, k_BTHK, v_BTHK, y_BTHK, jnp.sum(y_BTHK, axis=-1, dtype=jnp.float32))


_stand_in.defvjp(_stand_in_forward, lambda kept, dy_BTHK: tuple(dy_BTHK + 0 * x for x in kept[:3]))
