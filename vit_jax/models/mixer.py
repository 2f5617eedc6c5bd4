"""MLP-Mixer (Tolstikhin et al. 2021): blocks of two MLPs, one over the patches and one over the channels.

As in the published code, the MLP over the patches ends in a bias. It adds the same to all channels of a patch, which
the norms take away again, so that it changes nothing.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax import options
from vit_jax.errors import UserError, nearest
from vit_jax.layers import noise
from vit_jax.layers.dense import Dense, lecun_normal, zeros
from vit_jax.layers.mlp import Mlp
from vit_jax.layers.norm import LayerNorm
from vit_jax.layers.patch_embed import PatchEmbed
from vit_jax.layers.stack import Execution, Stack
from vit_jax.models.family import Family
from vit_jax.options import option
from vit_jax.parallel.mesh import constrain

_S = dict(width=512, depth=8, tokens_mlp_dim=256, mlp_dim=2048)
_B = dict(width=768, depth=12, tokens_mlp_dim=384, mlp_dim=3072)
_L = dict(width=1024, depth=24, tokens_mlp_dim=512, mlp_dim=4096)
_H = dict(width=1280, depth=32, tokens_mlp_dim=640, mlp_dim=5120)
# Tolstikhin et al. 2021, table 1.
SIZES = {
    'S/32': _S | dict(patch_size=32), 'S/16': _S | dict(patch_size=16), 'B/32': _B | dict(patch_size=32),
    'B/16': _B | dict(patch_size=16), 'L/32': _L | dict(patch_size=32), 'L/16': _L | dict(patch_size=16),
    'H/14': _H | dict(patch_size=14),
}


@dataclasses.dataclass(frozen=True)
class Config:
  """An MLP-Mixer's shape; `size('S/16')` gives the published ones. The defaults are S/16."""
  patch_size: int = option(16, least=1, most=2**14)
  width: int = option(512, least=1, most=2**17)  # channels
  depth: int = option(8, least=1, most=4096)
  tokens_mlp_dim: int = option(256, least=1, most=2**17)  # hidden units of the MLP over the patches
  mlp_dim: int = option(2048, least=1, most=2**17)  # hidden units of the MLP over the channels
  dropout: float = option(0.0, below=1)  # in both MLPs, after the GELU
  drop_path: float = option(0.0, below=1)  # stochastic depth of the last block; rises linearly from 0 at the first
  gelu: Literal['exact', 'tanh'] = 'tanh'  # as in the published code
  epsilon: float = option(1e-6, least=1e-20, most=1)  # of the norms, as in the published code
  head_bias: float = option(0.0, least=-100, most=100)  # initial; suits loss.name=sigmoid if it is -ln C, as -6.9
  dtype: Literal['float32', 'bfloat16'] = 'float32'  # of matmuls; parameters and norms stay float32


def size(name: str) -> dict:
  """The fields of a published shape: size('S/16')."""
  if name not in SIZES:
    raise UserError(f'Mixer size {name!r}: no such published size{nearest(name, SIZES)}')
  return dict(SIZES[name])


def check(config: Config, image_shape: tuple[int, int, int]) -> None:
  """Raises UserError where the shape cannot be built; before anything is compiled."""
  options.check(config, 'model')
  if any(side % config.patch_size for side in image_shape[:2]):
    raise UserError(f'model.patch_size={config.patch_size} does not divide the image of {image_shape[0]}x'
                    f'{image_shape[1]}: set data.image_size to multiples of it, or another patch size')


def resized(params: dict, config: Config, image_shape: tuple[int, int, int], new_shape: tuple[int, int, int]) -> dict:
  """Parameters for pictures of another size: none, as the MLP over the patches belongs to their number and places."""
  if image_shape[:2] != new_shape[:2]:
    raise UserError(f'a mixer of pictures of {image_shape[0]}x{image_shape[1]} cannot read pictures of {new_shape[0]}x'
                    f'{new_shape[1]}: set data.image_size to {tuple(image_shape[:2])}')
  return params


class Block(nnx.Module):
  """Pre-LN: x + MLP over tokens(norm(x)), then x + MLP over channels(norm(x)) (Tolstikhin et al. 2021, eq. 1)."""

  def __init__(self, config: Config, tokens: int, *, rngs: nnx.Rngs):
    dtype = jnp.dtype(config.dtype)
    mlp = lambda *sizes, axis: Mlp(*sizes, axis=axis, rngs=rngs, dropout=config.dropout, gelu=config.gelu,
                                   kernel_init=lecun_normal, bias_init=None, dtype=dtype)
    self.norm1 = LayerNorm(config.width, dtype=dtype, epsilon=config.epsilon)
    self.token_mixing = mlp(tokens, config.tokens_mlp_dim, axis=None)
    self.norm2 = LayerNorm(config.width, dtype=dtype, epsilon=config.epsilon)
    self.channel_mixing = mlp(config.width, config.mlp_dim, axis='embed')

  def __call__(self, x_BTD: jax.Array, keys_B: jax.Array | None, drop_path: jax.Array | None) -> jax.Array:
    dropped = lambda y, site: y if drop_path is None else noise.drop_path(y, drop_path, noise.fold(keys_B, site))
    y_BDT = self.token_mixing(jnp.swapaxes(self.norm1(x_BTD), 1, 2), noise.fold(keys_B, 0))
    x_BTD = x_BTD + dropped(jnp.swapaxes(y_BDT, 1, 2), 1)
    y_BTD = self.channel_mixing(self.norm2(x_BTD), noise.fold(keys_B, 2))
    return constrain(x_BTD + dropped(y_BTD, 3), 'batch')


class Mixer(nnx.Module):
  """Patches -> blocks -> norm -> mean over all patches -> logits."""

  def __init__(self, config: Config, image_shape: tuple[int, int, int], num_classes: int, *, rngs: nnx.Rngs,
               execution: Execution = Execution()):
    """Raises UserError for shapes that cannot be built (see `check`)."""
    check(config, image_shape)
    self.config, self.execution = config, execution
    height, width, channels = image_shape
    tokens, dtype = (height // config.patch_size) * (width // config.patch_size), jnp.dtype(config.dtype)
    self.patch_embed = PatchEmbed(config.patch_size, channels, config.width, rngs=rngs, dtype=dtype)
    self.stack = Stack(lambda rngs: Block(config, tokens, rngs=rngs), config.depth, rngs=rngs)
    self.norm = LayerNorm(config.width, dtype=dtype, epsilon=config.epsilon)
    self.head = Dense((config.width,), (num_classes,), ('embed', 'classes'), rngs=rngs, role='output',
                      kernel_init=zeros, bias_init=lambda key, shape: jnp.full(shape, config.head_bias, jnp.float32))

  def __call__(self, images_BHWC: jax.Array, keys_B: jax.Array | None = None,
               capture: tuple[str, ...] = ()) -> tuple[jax.Array, dict]:
    """See `models.family.Model`. `capture` can name 'features' [L, B, T, D]."""
    def call(block, x_BTD, layer):
      x_BTD = block(x_BTD, noise.fold(keys_B, layer['index']), layer.get('drop_path'))
      return x_BTD, {'features': x_BTD} if 'features' in capture else {}

    x_BTD, captured = self.stack.run(constrain(self.patch_embed(images_BHWC), 'batch'),
                                     noise.layers(self.config.depth, self.config.drop_path), call, self.execution)
    x_BD = self.norm(x_BTD).mean(axis=1)
    return self.head(x_BD.astype(jnp.float32)), {'pre_logits': x_BD, **captured}


FAMILY = Family(Config, Mixer, SIZES, resized)
