"""A transformer of text: tokens in, features out. It is the encoder of `models.vit` with a table in place of patches.

Its options have the published forms: that of SigLIP (bidirectional over all tokens, padding too; the last one is read)
and that of CLIP (causal; the end token is read).
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.errors import UserError
from vit_jax.layers.attention import AttentionPool
from vit_jax.layers.dense import Dense, lecun_normal, parameter
from vit_jax.layers.encoder import Encoder
from vit_jax.layers.norm import LayerNorm
from vit_jax.layers.stack import Execution
from vit_jax.models import vit
from vit_jax.options import option

# (width, depth, MLP, heads) of the text tower beside an image tower: Zhai et al. 2023 (SigLIP has the same shape for
# both, and one of So400m); Radford et al. 2021, table 20 (CLIP).
SIZES = {
    'siglip_b': dict(width=768, depth=12, mlp_dim=3072, num_heads=12),
    'siglip_l': dict(width=1024, depth=24, mlp_dim=4096, num_heads=16),
    'siglip_so400m': dict(width=1152, depth=27, mlp_dim=4304, num_heads=16),
    'clip_b': dict(width=512, depth=12, mlp_dim=2048, num_heads=8),
    'clip_l': dict(width=768, depth=12, mlp_dim=3072, num_heads=12),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """A text tower's shape; `SIZES` has published ones."""
  width: int = option(512, least=1, most=2**17)
  depth: int = option(12, least=1, most=4096)
  mlp_dim: int = option(2048, least=1, most=2**17)
  num_heads: int = option(8, least=1, most=2**17)
  causal: bool = False  # each token sees itself and those before it
  # What is read of the tokens: the last of the row, padding or not (SigLIP); the end token (CLIP); the mean of those
  # that are not padding; or attention pooling over the row.
  pool: Literal['last', 'end', 'gap', 'map'] = 'last'
  gelu: Literal['exact', 'tanh', 'quick'] = 'tanh'  # of vit.Config
  epsilon: float = option(1e-6, least=1e-20, most=1)  # of the norms
  # Rows of the table of tokens; None: as many as the tokenizer has.
  vocab_size: int | None = option(None, least=2, most=2**24)


def check(config: Config) -> None:
  """Raises UserError for a shape that cannot be built."""
  if config.width % config.num_heads:
    raise UserError(f'loss.text.num_heads={config.num_heads} does not divide loss.text.width={config.width}')


class TextTower(nnx.Module):
  """Tokens (+ learned positions) -> encoder -> norm -> pooled -> projected."""

  def __init__(self, config: Config, vocab_size: int, length: int, out_width: int, use_bias: bool, *, rngs: nnx.Rngs,
               execution: Execution = Execution(), dtype: Any = 'float32'):
    """Builds it.

    Args:
      config: its shape.
      vocab_size: rows of the table of tokens.
      length: tokens of a row.
      out_width: width of what it gives.
      use_bias: whether the last projection has a bias.
      rngs: of the parameters.
      execution: how its blocks are run.
      dtype: of matmuls.
    """
    check(config)
    self.config, self.dtype = config, jnp.dtype(dtype)
    own = dataclasses.replace(vit.Config(), **{name: getattr(config, name) for name in (
        'width', 'depth', 'mlp_dim', 'num_heads', 'gelu', 'epsilon')}, dtype=self.dtype.name,
        attention='causal' if config.causal else 'full')
    # Deviations of 0.02 and 0.01: CLIP's code.
    normal = lambda rows, deviation: deviation * jax.random.normal(rngs.params(), (rows, config.width))
    self.tokens = parameter(normal(vocab_size, 0.02), ('vocab', 'embed'), 'input')
    self.positions = parameter(normal(length, 0.01), (None, 'embed'), 'input')
    plain = dataclasses.replace(execution, attention_kernel='auto')  # what is asked for is asked of the image tower
    self.encoder = Encoder(own, (1, length), rngs=rngs, execution=plain)
    self.norm = LayerNorm(config.width, dtype=self.dtype, epsilon=config.epsilon)
    self.attention_pool = AttentionPool(config.width, config.mlp_dim, config.num_heads, rngs=rngs, dtype=self.dtype,
                                        gelu=config.gelu, epsilon=config.epsilon) if config.pool == 'map' else None
    self.projection = Dense((config.width,), (out_width,), ('embed', None), rngs=rngs, role='output',
                            kernel_init=lecun_normal, use_bias=use_bias)

  def __call__(self, tokens_BT: jax.Array, lengths_B: jax.Array) -> jax.Array:
    """int32 [B, T] and the tokens of each row without its padding -> [B, E] in float32."""
    embedded_BTD = self.tokens[...].astype(self.dtype)[tokens_BT]
    x_BTD, _ = self.encoder(embedded_BTD + self.positions[...].astype(self.dtype)[None])
    return self.projection(self._pool(x_BTD, lengths_B).astype(jnp.float32))

  def _pool(self, x_BTD, lengths_B):
    """The norm, and what is read of the tokens. Where that is one of them, it alone is normalised."""
    if self.config.pool == 'last':
      return self.norm(x_BTD[:, -1])
    if self.config.pool == 'end':
      last_B = jnp.maximum(lengths_B - 1, 0)
      return self.norm(jnp.take_along_axis(x_BTD, last_B[:, None, None], axis=1)[:, 0])
    x_BTD = self.norm(x_BTD)
    if self.config.pool == 'map':
      return self.attention_pool(x_BTD)
    real_BT = jnp.arange(x_BTD.shape[1])[None] < lengths_B[:, None]
    share_BT = real_BT.astype(jnp.float32) / jnp.maximum(lengths_B, 1).astype(jnp.float32)[:, None]
    return jnp.einsum('btd,bt->bd', x_BTD, share_BT.astype(x_BTD.dtype))
