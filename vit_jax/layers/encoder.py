"""The transformer encoder: tokens in, tokens out. Vision Transformers are made of it (`models.vit`)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import UserError
from vit_jax.layers import kernels, noise
from vit_jax.layers.attention import SelfAttention
from vit_jax.layers.dense import parameter
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import LayerNorm
from vit_jax.layers.pos_embed import ANGLES
from vit_jax.layers.stack import Execution, Stack
from vit_jax.parallel import blocks
from vit_jax.parallel.blocks import Stream

# What each block computes on the way, by the names of `capture`; in brackets those of big_vision. All but the last are
# [L, B, T, D].
CAPTURES = (
    'attention_output',  # what attention adds to the residual stream (sa)
    'after_attention',  # the residual stream with it (+sa)
    'mlp_output',  # what the MLP adds to the residual stream (mlp)
    'features',  # the residual stream with it, which the next block reads (+mlp)
    'attention',  # attention weights [L, B, H, T, T], of models with model.attention=full
)


class EncoderBlock(nnx.Module):
  """Pre-LN: x + attention(norm(x)), then x + MLP(norm(x)) (Dosovitskiy et al. 2021, eqs. 2 and 3)."""

  def __init__(self, config: Any, grid: tuple[int, int], pos_embed: str, *, rngs: nnx.Rngs):
    """See `Encoder`."""
    dtype = jnp.dtype(config.dtype)
    rope = dict(rope_grid=grid, rope=pos_embed, rope_theta=config.rope_theta) if pos_embed in ANGLES else {}
    self.norm1 = LayerNorm(config.width, dtype=dtype, epsilon=config.epsilon)
    self.attention = SelfAttention(config.width, config.num_heads, rngs=rngs, head_dim=config.head_dim,
                                   qkv_bias=config.qkv_bias, qk_norm=config.qk_norm, epsilon=config.epsilon,
                                   base_head_dim=config.base_head_dim, dtype=dtype,
                                   relative_grid=grid if pos_embed == 'relative' else None, **rope)
    self.norm2 = LayerNorm(config.width, dtype=dtype, epsilon=config.epsilon)
    self.mlp = Mlp(config.width, config.mlp_dim, rngs=rngs, dropout=config.dropout, gelu=config.gelu,
                   gated=config.mlp == 'swiglu', dtype=dtype)
    scale = lambda: parameter(jnp.full(config.width, config.layer_scale), ('embed',))
    self.scale1, self.scale2 = (None, None) if config.layer_scale is None else (scale(), scale())
    self.dropout = config.dropout

  def __call__(self, x_BTD: jax.Array, keys_B: jax.Array | None, drop_path: jax.Array | None, attend: Any,
               stream: Stream) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The residual stream after the block (the tokens alone that `stream` says are read), and all of CAPTURES.

    Args:
      x_BTD: the residual stream, as `stream` splits it.
      keys_B: one PRNG key an example: noise acts. None: it does not.
      drop_path: the rate of stochastic depth; None: there is none.
      attend: what computes attention (`layers.kernels`).
      stream: how the sub-blocks are split on a mesh.
    """
    out, attention = {}, lambda module, x_BTD, _: module(x_BTD, attend=attend, queries=stream.read)
    y_BTD, out['attention'] = stream.sub_block(attention, self.attention, self.norm1(x_BTD))
    x_BTD, stream = stream.cut(x_BTD)
    out['attention_output'] = self.branch(y_BTD, self.scale1, drop_path, noise.fold(keys_B, 0))
    x_BTD = out['after_attention'] = x_BTD + out['attention_output']
    mlp = lambda module, x_BTD, keys_B: (module(x_BTD, keys_B), None)
    y_BTD, _ = stream.sub_block(mlp, self.mlp, self.norm2(x_BTD), noise.fold(keys_B, 1))
    out['mlp_output'] = self.branch(y_BTD, self.scale2, drop_path, noise.fold(keys_B, 2))
    x_BTD = out['features'] = x_BTD + out['mlp_output']
    return x_BTD, out

  def branch(self, y_BTD: jax.Array, scale: nnx.Param | None, drop_path: jax.Array | None = None,
             keys_B: jax.Array | None = None) -> jax.Array:
    """What is added to the residual stream: scaled, and with noise."""
    if scale is not None:
      y_BTD = y_BTD * scale[...].astype(y_BTD.dtype)[None, None, :]
    y_BTD = noise.dropout(y_BTD, self.dropout, noise.fold(keys_B, 0))
    return y_BTD if drop_path is None else noise.drop_path(y_BTD, drop_path, noise.fold(keys_B, 1))


class Encoder(Stack):
  """`depth` blocks over tokens [B, T, D], without an embedding before them and without a norm after them."""

  def __init__(self, config: Any, grid: tuple[int, int], pos_embed: str = 'none', *, rngs: nnx.Rngs,
               execution: Execution = Execution()):
    """Raises UserError for a kernel that cannot compute this attention.

    Args:
      config: its fields width, depth, mlp_dim, num_heads, head_dim, qkv_bias, base_head_dim, attention,
        attention_radius, rope_theta, layer_scale, dropout, drop_path, qk_norm, mlp, gelu, epsilon and dtype are those
        of `models.vit.Config`.
      grid: (rows, columns) of the patches, which are the last of the tokens.
      pos_embed: 'relative' and the names of `pos_embed.ANGLES` act in every block. Others belong to the embedding.
      rngs: of the parameters.
      execution: how the blocks are run.
    """
    self.request = kernels.Request.of(config, grid[0] * grid[1], pos_embed, execution.blocks)
    kernels.check(execution.attention_kernel, self.request)
    super().__init__(lambda rngs: EncoderBlock(config, grid, pos_embed, rngs=rngs), config.depth, rngs=rngs)
    self.config, self.grid, self.execution = config, grid, execution

  def __call__(self, x_BTD: jax.Array, keys_B: jax.Array | None = None, capture: tuple[str, ...] = (),
               read: int | None = None, attend: Any = None) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The tokens after the last block, and what `capture` names.

    Args:
      x_BTD: the tokens.
      keys_B: one PRNG key an example: dropout and stochastic depth act. None: they do not (evaluation).
      capture: names of CAPTURES. Nothing is computed or kept for the others.
      read: how many of the first tokens the caller reads; None: all. Unrolled, the last block computes no others, and
        fewer than T tokens may come back.
      attend: what computes attention, such as one with a mask; it has the signature of those in `layers.kernels`.
        None: as the config and the execution say.

    Raises:
      UserError: 'attention' of an attention without weights.
    """
    c, weights = self.config, 'attention' in capture
    if weights and c.attention != 'full':
      raise UserError(f'attention weights were asked for, which model.attention={c.attention} never makes')
    tokens = x_BTD.shape[1]
    request = dataclasses.replace(self.request, tokens=tokens)
    attend = attend or kernels.KINDS[c.attention](c, self.grid, kernels.chosen(
        self.execution.attention_kernel, request, weights))
    if read is None or capture or (c.dropout and keys_B is not None):  # dropout's noise is drawn for all tokens
      read = tokens

    def call(block, x_BTD, layer, read=tokens):
      stream = Stream(tokens, read, self.request.explicit)
      keys = noise.fold(keys_B, layer['index'])
      x_BTD, out = block(x_BTD, keys, layer.get('drop_path'), attend, stream)
      return x_BTD, {name: out[name] if name == 'attention' else out[name][:, :tokens] for name in capture}

    x_BTD, captured = self.run(blocks.split_tokens(x_BTD), noise.layers(c.depth, c.drop_path), call, self.execution,
                               call_last=functools.partial(call, read=read))
    return blocks.whole_tokens(x_BTD, tokens), captured
