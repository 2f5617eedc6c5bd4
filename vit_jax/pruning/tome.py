"""Token merging: makes a trained ViT faster by merging similar patches (ToMe, Bolya et al. 2023).

Nothing is trained. In each block, between attention and MLP, the patches are split alternately into two sets. Each
patch of the first set is matched with the patch of the second set whose keys are most similar. The `merged` most
similar pairs become one token each, the mean of the patches in it. A token of s patches counts s times in attention:
log s is added to its logits (eq. 1). Tokens that are not patches are never merged.
"""

import jax
import jax.numpy as jnp

from vit_jax.errors import UserError
from vit_jax.layers.attention import attend
from vit_jax.layers.pos_embed import ANGLES
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel, that_have


def check(model: PureModel) -> None:
  """Raises UserError for a model whose tokens cannot be merged."""
  config = model.config
  if model.family.tokens is None:
    raise UserError(f'token merging is for {that_have("tokens")} only, not for {model.name}')
  if config.pos_embed in (*ANGLES, 'relative'):
    raise UserError(f'model.pos_embed={config.pos_embed}: each block needs the place of each token, and a merged token '
                    'has several')
  if config.attention != 'full':
    raise UserError(f'model.attention={config.attention}: tokens are merged in attention=full only')


def apply(model: PureModel, params: dict, images_BHWC: jax.Array, merged: int) -> jax.Array:
  """Logits [B, C], with `merged` tokens fewer after each block. To be called under `jax.jit`.

  Args:
    model: a vit or a deit; see `check`.
    params: its parameters.
    images_BHWC: float32, normalised.
    merged: how many tokens each block merges, at most half of those that are left; 0 leaves the model as it is.

  Raises:
    UserError: the model's tokens cannot be merged; see `check`.
  """
  check(model)
  module = model.module(params, {})

  def call(block, tokens, _):
    x_BTD, sizes_BT = tokens
    attention = block.attention
    q_BTHK, k_BTHK, v_BTHK = jnp.moveaxis(attention.qkv(block.norm1(x_BTD)), 3, 0)
    y_BTHK, _ = attend(q_BTHK, k_BTHK, v_BTHK, attention.base_head_dim, jnp.log(sizes_BT)[:, None, None])
    x_BTD = x_BTD + block.branch(attention.out(y_BTHK), block.scale1)
    x_BTD, sizes_BT = merge(x_BTD, sizes_BT, k_BTHK.mean(axis=2), merged, module.leading)
    return (x_BTD + block.branch(block.mlp(block.norm2(x_BTD)), block.scale2), sizes_BT), None

  x_BTD = module.embed(images_BHWC)
  start = (x_BTD, jnp.ones(x_BTD.shape[:2], jnp.float32))
  (x_BTD, sizes_BT), _ = module.encoder.run(start, {}, call, Execution(scan=False))
  return module.classify(x_BTD, sizes_BT)[0]


def merge(x_BTD: jax.Array, sizes_BT: jax.Array, keys_BTK: jax.Array, merged: int,
          leading: int) -> tuple[jax.Array, jax.Array]:
  """Bipartite soft matching (sec. 3).

  Args:
    x_BTD: the tokens.
    sizes_BT: the number of patches that each token was merged from.
    keys_BTK: vectors whose cosine is the similarity of two tokens.
    merged: how many tokens are merged, at most half of the patches.
    leading: how many tokens at the start are not patches.

  Returns:
    The tokens that are left, (x_BTD, sizes_BT): the leading tokens, the unmerged patches of the first set, and the
    second set.
  """
  merged = min(merged, (x_BTD.shape[1] - leading) // 2)
  if not merged:
    return x_BTD, sizes_BT
  keys_BTK = keys_BTK.astype(jnp.float32)
  keys_BTK = keys_BTK / jnp.linalg.norm(keys_BTK, axis=-1, keepdims=True)
  sets = lambda x: (x[:, leading::2], x[:, leading + 1::2])
  alike_BMN = jnp.einsum('bmk,bnk->bmn', *sets(keys_BTK))
  by_likeness_BM = jnp.argsort(alike_BMN.max(axis=-1), axis=-1, descending=True)
  goes_BR, stays_BM = by_likeness_BM[:, :merged], jnp.sort(by_likeness_BM[:, merged:], axis=-1)
  into_BR = jnp.take_along_axis(alike_BMN.argmax(axis=-1), goes_BR, axis=-1)
  rows_B1 = jnp.arange(len(x_BTD))[:, None]

  def joined(x):
    """The tokens that are left, in which merged ones are summed."""
    first, second = sets(x)
    second = second.at[rows_B1, into_BR].add(first[rows_B1, goes_BR])
    return jnp.concatenate([x[:, :leading], first[rows_B1, stays_BM], second], axis=1)

  sums_BTD = joined(x_BTD.astype(jnp.float32) * sizes_BT[..., None])
  sizes_BT = joined(sizes_BT)
  return (sums_BTD / sizes_BT[..., None]).astype(x_BTD.dtype), sizes_BT
