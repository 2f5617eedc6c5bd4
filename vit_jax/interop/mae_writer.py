"""Writing a whole masked autoencoder, encoder and decoder, for transformers' ViTMAEForPreTraining."""

import dataclasses
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.interop import huggingface_writer, layout
from vit_jax.interop.huggingface_layouts import LAYOUTS, mae_decoder
from vit_jax.interop.weights import Weights
from vit_jax.layers import pos_embed
from vit_jax.models import vit

KIND = 'vit_mae'
# {our field of config.loss: the key of their config}
_DECODER = {'mask_ratio': 'mask_ratio', 'normalize_targets': 'norm_pix_loss', 'decoder_width': 'decoder_hidden_size',
            'decoder_depth': 'decoder_num_hidden_layers', 'decoder_mlp_dim': 'decoder_intermediate_size',
            'decoder_num_heads': 'decoder_num_attention_heads'}


def representable(weights: Weights) -> Weights:
  """The model with a table of positions, as theirs always is. Raises UserError if they do not have the model."""
  height, width, _ = weights.image_shape
  if weights.family != 'vit':
    raise UserError(f'{weights.source}: transformers has masked autoencoders of family=vit only, got {weights.family}')
  if height != width:
    raise UserError(f'{weights.source}: pictures of {height}x{width}; transformers has masked autoencoders of square '
                    'pictures only')
  if weights.config.pos_embed != 'sincos2d':
    return weights
  table = pos_embed.sincos2d(vit.grid(weights.config, weights.image_shape), weights.config.width)
  return dataclasses.replace(weights, model=weights.model | {'pos_embed': 'learned'},
                             params=weights.params | {'pos_embed': np.asarray(table, np.float32)})


def config_json(weights: Weights, options: Any) -> dict[str, Any]:
  """The config.json of a `representable` model whose `config.loss` is `options`; raises UserError as of a classifier.
  """
  size, form = weights.image_shape[0], LAYOUTS[KIND]
  return huggingface_writer.config_json(weights, KIND) | {
      'architectures': [form.architecture], 'image_size': size,
      **{theirs: getattr(options, ours) for ours, theirs in _DECODER.items()}}


def write(weights: Weights, positions_TD: np.ndarray) -> dict[str, np.ndarray]:
  """{their name: array} of a `representable` model with its decoder, whose fixed positions are given."""
  arrays = layout.write(weights, LAYOUTS[KIND].rules(weights.config) + mae_decoder())
  table = np.concatenate([np.zeros_like(positions_TD[:1]), positions_TD]).astype(np.float32)  # that of CLS is zero
  return arrays | {'decoder.decoder_pos_embed': table[None]}
