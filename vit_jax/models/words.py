"""What a Vision Transformer needs to read and write text: tokens before those of the picture, in the same encoder.

A text of N tokens is written at N places. Place n reads token n - 1, the first a learned start, and predicts token n.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.layers.attention import attend
from vit_jax.layers.dense import Dense, normal_002, parameter, zeros
from vit_jax.layers.windows import MASKED


class Words(nnx.Module):
  """Token numbers to what an encoder reads, and what it gives to logits over the vocabulary."""

  def __init__(self, width: int, vocab_size: int, length: int, *, rngs: nnx.Rngs, tied: bool = False,
               blank: bool = False, dtype: Any = 'float32'):
    """Builds it.

    Args:
      width: of the encoder.
      vocab_size: token numbers are less than it.
      length: tokens of a text, N.
      rngs: of the parameters.
      tied: whether logits are products with the table of tokens. Otherwise a map of their own makes them, which is
        zero at the start.
      blank: whether there is a token that hides what a place reads.
      dtype: of matmuls.
    """
    self.dtype = jnp.dtype(dtype)
    normal = lambda *shape: normal_002(rngs.params(), (*shape, width), 0, 0)
    self.table = parameter(normal(vocab_size), ('vocab', 'embed'), 'input')
    self.places = parameter(normal(length), (None, 'embed'), 'input')
    self.start = parameter(normal(), ('embed',), 'input')
    self.blank = parameter(normal(), ('embed',), 'input') if blank else None
    self.head = None if tied else Dense((width,), (vocab_size,), ('embed', 'vocab'), rngs=rngs, role='output',
                                        kernel_init=zeros, dtype=self.dtype)

  def embed(self, before_BT: jax.Array, places_BT: jax.Array, hidden_BT: jax.Array | None = None) -> jax.Array:
    """[B, T, D]: what the encoder reads at these places.

    Args:
      before_BT: the token before each place; of place 0 any number.
      places_BT: the places, from 0; [1, T] if they are those of all rows.
      hidden_BT: bool: where there is a blank instead of a token; None: nowhere.
    """
    table, places, start = (p[...].astype(self.dtype) for p in (self.table, self.places, self.start))
    x_BTD = jnp.where((places_BT == 0)[..., None], start[None, None], table[before_BT])
    if hidden_BT is not None:
      x_BTD = jnp.where(hidden_BT[..., None], self.blank[...].astype(self.dtype)[None, None], x_BTD)
    return x_BTD + places[places_BT]

  def logits(self, x_BTD: jax.Array) -> jax.Array:
    """[B, T, D], normalised -> [B, T, V] in float32."""
    if self.head is not None:
      return self.head(x_BTD).astype(jnp.float32)
    return jnp.einsum('btd,vd->btv', x_BTD, self.table[...].astype(self.dtype)).astype(jnp.float32)


def attending(reach_BT: jax.Array, length: int) -> Callable:
  """`attention.attend` between tokens of which the first `length` keys are text, and the others a picture's.

  Query t sees the first reach_BT[b, t] tokens of the text, and the whole picture.
  """
  def masked(q_BTHK, k_BSHK, v_BSHK, base_head_dim=None, bias_WHTS=None, queries=None):
    assert bias_WHTS is None, 'a model with biases has been refused'
    places_S = jnp.arange(k_BSHK.shape[1])
    hidden_BTS = (places_S < length)[None, None] & (places_S[None, None] >= reach_BT[..., None])
    bias_B1TS = jnp.where(hidden_BTS, jnp.float32(MASKED), jnp.float32(0))[:, None]
    return attend(q_BTHK, k_BSHK, v_BSHK, base_head_dim, bias_B1TS, queries)
  return masked
