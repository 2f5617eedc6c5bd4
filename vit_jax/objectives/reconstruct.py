"""Masked autoencoders (He et al. 2022): most patches of a picture are left out, and the model draws them.

The encoder is the family's own and sees only the patches that are kept. A small decoder gets their features, puts one
learned token in each other place, and predicts the pixels of every patch. The loss is the squared error of the patches
that were left out. After training the decoder is thrown away: a run of this objective is a backbone for fine-tuning.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax import models
from vit_jax.errors import UserError
from vit_jax.layers import noise, pos_embed
from vit_jax.layers.dense import Dense, parameter
from vit_jax.layers.encoder import Encoder
from vit_jax.layers.norm import LayerNorm
from vit_jax.layers.patch_embed import patchify
from vit_jax.objectives.objective import Metric, Objective
from vit_jax.options import option


@dataclasses.dataclass(frozen=True)
class Config:
  """What is left out, and the decoder; the defaults are those of the paper (table 1)."""
  mask_ratio: float = option(0.75, above=0, below=1)  # share of the patches that is left out
  decoder_width: int = option(512, least=4, most=2**17)
  decoder_depth: int = option(8, least=1, most=4096)
  decoder_mlp_dim: int = option(2048, least=1, most=2**17)
  decoder_num_heads: int = option(16, least=1, most=2**17)
  normalize_targets: bool = True  # each patch's pixels to mean 0 and deviation 1 (table 1d)


class Decoder(nnx.Module):
  """Features of the patches that are kept -> the pixels of all patches (He et al. 2022, sec. 3)."""

  def __init__(self, config: Config, encoder: Encoder, leading: int, pixels: int, *, rngs: nnx.Rngs):
    """Builds it for an encoder.

    Args:
      config: its shape.
      encoder: what it follows: its blocks are of the same kind and run alike.
      leading: the number of the encoder's tokens before the patches.
      pixels: values in a patch.
      rngs: of the parameters.
    """
    own = dataclasses.replace(encoder.config, width=config.decoder_width, depth=config.decoder_depth,
                              mlp_dim=config.decoder_mlp_dim, num_heads=config.decoder_num_heads, head_dim=None,
                              dropout=0.0, drop_path=0.0)
    width, dtype = own.width, jnp.dtype(own.dtype)
    self.grid, self.leading = encoder.grid, leading
    self.embed = Dense((encoder.config.width,), (width,), ('embed', None), rngs=rngs, dtype=dtype)
    self.mask_token = parameter(0.02 * jax.random.normal(rngs.params(), (width,)), ('embed',), 'input')
    self.encoder = Encoder(own, encoder.grid, rngs=rngs, execution=encoder.execution)
    self.norm = LayerNorm(width, dtype=dtype, epsilon=own.epsilon)
    self.predict = Dense((width,), (pixels,), ('embed', None), rngs=rngs, role='output', dtype=dtype)

  def __call__(self, x_BKD: jax.Array, restore_BT: jax.Array) -> jax.Array:
    """[B, leading + kept, D] -> [B, T, pixels] in float32.

    `restore_BT` has the place of each patch in the order in which the kept ones come first.
    """
    x_BKD = self.embed(x_BKD)
    leading_BLD, kept_BKD = jnp.split(x_BKD, [self.leading], axis=1)
    missing = restore_BT.shape[1] - kept_BKD.shape[1]
    mask_BMD = jnp.broadcast_to(self.mask_token[...].astype(x_BKD.dtype)[None, None],
                                (len(x_BKD), missing, x_BKD.shape[-1]))
    x_BTD = taken(jnp.concatenate([kept_BKD, mask_BMD], axis=1), restore_BT)
    x_BTD = x_BTD + jnp.asarray(positions(self.grid, x_BTD.shape[-1]), x_BTD.dtype)[None]
    x_BTD, _ = self.encoder(jnp.concatenate([leading_BLD, x_BTD], axis=1))
    return self.predict(self.norm(x_BTD)[:, self.leading:]).astype(jnp.float32)


def positions(grid, width):
  """The decoder's fixed positions [T, D]: those of the original code, whose lowest frequency is not the temperature."""
  return pos_embed.sincos2d(grid, width, last=False)


def taken(x_BTD: jax.Array, index_BK: jax.Array) -> jax.Array:
  """[B, T, D] -> [B, K, D]: of each example the tokens with these indices."""
  return jax.vmap(lambda x_TD, index_K: x_TD.at[index_K].get(mode='promise_in_bounds'))(x_BTD, index_BK)


@dataclasses.dataclass(frozen=True)
class Reconstruct(Objective):
  """The pixels of the patches that were left out, from those that were kept."""
  Config: ClassVar[type] = Config
  metrics = {'loss': Metric()}
  use = '--reconstruct'

  def check(self, config):
    super().check(config)
    if models.family(config.family).tokens is None:
      raise UserError(f'family={config.family}: objective=reconstruct leaves out tokens of a transformer: for '
                      f'{models.that_have("tokens")}')
    if (width := self.config.decoder_width) % (heads := self.config.decoder_num_heads) or width % 4:
      raise UserError(f'loss.decoder_width={width}: must be a multiple of loss.decoder_num_heads={heads} and of 4')
    if (decay := config.optimizer.layer_decay) != 1:
      raise UserError(f'optimizer.layer_decay={decay}: is for fine-tuning; set it to 1 for objective=reconstruct')
    model = config.model
    wrong = {'pos_embed': ('rope2d', 'rope2d_centred', 'relative'), 'attention': ('local',), 'pool': ('map',)}
    whys = {'pos_embed': 'acts between all patches of a grid; set learned or sincos2d',
            'attention': 'is between neighbours in a grid; set full or linear',
            'pool': 'has parameters that objective=reconstruct does not train; set cls or gap'}
    for name, values in wrong.items():
      if (value := getattr(model, name)) in values:
        raise UserError(f'model.{name}={value}: {whys[name]}')

  def build(self, family, config, image_shape, num_classes, *, rngs, execution):
    grid, patch = family.tokens(config, image_shape).grid, config.patch_size
    if (grid[0] * patch, grid[1] * patch) != tuple(image_shape[:2]):
      raise UserError(f'model.patch_size={patch} does not divide the pictures of {image_shape[0]}x{image_shape[1]}, '
                      'whose patches objective=reconstruct draws: set data.image_size or another patch size')
    self.kept(grid[0] * grid[1])
    module = family.model(config, image_shape, 0, rngs=rngs, execution=execution)
    module.decoder = Decoder(self.config, module.encoder, module.leading, patch * patch * image_shape[2], rngs=rngs)
    return module

  def kept(self, patches: int) -> int:
    """How many of the patches are kept. Raises UserError if it is none or all."""
    kept = int(patches * (1 - self.config.mask_ratio) + 1e-6)  # as the original code, but for rounding errors
    if not 0 < kept < patches:
      raise UserError(f'loss.mask_ratio={self.config.mask_ratio} keeps {kept} of {patches} patches: at least one must '
                      'be kept and one left out')
    return kept

  def prepare(self, model, batch, augment, keys_B):
    """Adds 'order' int32 [B, T], in which the patches that are kept come first, and 'targets' [B, T, pixels]."""
    batch = super().prepare(model, batch, augment, keys_B)
    targets_BTP = patchify(batch['image'], model.config.patch_size)
    if self.config.normalize_targets:
      mean, deviation = self.normalization(targets_BTP)
      targets_BTP = (targets_BTP - mean) / deviation
    noise_BT = jax.vmap(lambda key: jax.random.uniform(key, targets_BTP.shape[1:2]))(keys_B)
    return batch | {'targets': targets_BTP, 'order': jnp.argsort(noise_BT, axis=1)}

  def normalization(self, patches_BTP: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(mean, deviation) of the pixels of each patch, [B, T, 1]; the deviation is never 0."""
    variance = jnp.var(patches_BTP, -1, keepdims=True, ddof=1)
    return patches_BTP.mean(-1, keepdims=True), jnp.sqrt(variance + 1e-6)

  def forward(self, module, batch, keys_B=None, capture=()):
    """{'pixels' [B, T, P], 'mask' float32 [B, T]: 1 for patches that were left out}."""
    del capture
    config, order_BT = module.config, batch['order']
    kept, restore_BT = self.kept(order_BT.shape[1]), jnp.argsort(order_BT, axis=1)
    leading_BLD, x_BTD = jnp.split(module.embed(batch['image']), [module.leading], axis=1)
    x_BKD = jnp.concatenate([leading_BLD, taken(x_BTD, order_BT[:, :kept])], axis=1)
    x_BKD, _ = module.encoder(noise.dropout(x_BKD, config.dropout, noise.fold(keys_B, config.depth)), keys_B)
    return {'pixels': module.decoder(module.norm(x_BKD), restore_BT),
            'mask': (restore_BT >= kept).astype(jnp.float32)}

  def loss(self, outputs, batch):
    error_BT = jnp.mean(jnp.square(outputs['pixels'] - batch['targets']), axis=-1)
    mask_BT = outputs['mask']
    return {'loss': jnp.sum(error_BT * mask_BT, axis=1) / jnp.sum(mask_BT, axis=1)}


OBJECTIVE = Reconstruct
