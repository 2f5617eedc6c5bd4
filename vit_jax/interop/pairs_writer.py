"""Writing both towers of a run of objective=contrast for transformers' SiglipModel or CLIPModel."""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.interop import huggingface_pairs, huggingface_towers, layer_names, layout, tensors
from vit_jax.interop import rules as rules_lib
from vit_jax.interop.huggingface_towers import GELU
from vit_jax.interop.weights import Weights

_TEXT, _NUMBERS = ('text', 'projection'), {'log_scale': 'logit_scale', 'bias': 'logit_bias'}
_KINDS = {'sigmoid': 'siglip', 'softmax': 'clip'}  # by config.loss.name
_FREE = ('width', 'depth', 'num_heads', 'mlp_dim', 'patch_size', 'gelu', 'epsilon')  # of the image tower
# What else they are: fields of the image tower, of config.loss and of config.loss.text.
_IMAGE = {'siglip': {'pool': 'map'}, 'clip': {'pool': 'cls', 'pre_norm': True, 'last_norm': 'pooled'}}
_PAIRS = {'siglip': {'text.pool': 'last', 'text.causal': False, 'width': None},
          'clip': {'text.pool': 'end', 'text.causal': True}}
_GELU = {ours: theirs for theirs, ours in reversed(GELU)}
# {data.text.clean: do_lower_case} of a tokenizer.json, and of a SentencePiece model, which sees no punctuation.
_CLEANED = {'json': {'none': False, 'lower': True}, 'model': {'plain': False, 'plain_lower': True}}
_LEGACY_END = 2  # CLIPModel takes this number for a mark of old files, and then looks for the largest token


def config_json(weights: Weights, options: Any, length: int, end: int) -> dict[str, Any]:
  """The config.json of a run.

  Args:
    weights: all its parameters.
    options: its config.loss.
    length: tokens of a text.
    end: the number of the token that ends a text.

  Raises:
    UserError: transformers does not have the model; the message names the option.
  """
  kind, image, text = kind_of(options), weights.config, options.text
  if weights.family != 'vit':
    raise UserError(f'{weights.source}: family={weights.family}; transformers has image towers of family=vit')
  for name, right in _PAIRS[kind].items():
    value = getattr(text, name.removeprefix('text.')) if name.startswith('text.') else getattr(options, name)
    if value != right:
      raise UserError(f'{weights.source}: loss.{name}={value}: a {kind} of transformers has {right}')
  if kind == 'clip' and options.width is None:
    raise UserError(f'{weights.source}: loss.width=None: a clip of transformers projects both towers')
  if kind == 'clip' and end == _LEGACY_END:
    raise UserError(f'{weights.source}: the token that ends a text has the number {end}, which CLIPModel does not take '
                    'for an end; train with a vocabulary, such as data.text.tokenizer=clip')
  for name, right in _IMAGE[kind].items():
    if getattr(image, name) != right:
      raise UserError(f'{weights.source}: model.{name}={getattr(image, name)}: a {kind} of transformers has {right}')
  layout.check_representable(weights, {*_FREE, *_IMAGE[kind]}, 'transformers')
  height, width, channels = weights.image_shape
  if height != width:
    raise UserError(f'{weights.source}: pictures of {height}x{width}; a {kind} of transformers has square ones')
  vision = _shape(image) | {'patch_size': image.patch_size, 'image_size': height, 'num_channels': channels}
  words = _shape(text) | {'vocab_size': weights.params['text']['tokens'].shape[0], 'max_position_embeddings': length,
                          'eos_token_id': end, 'pad_token_id': 0}
  out = {'architectures': [{'siglip': 'SiglipModel', 'clip': 'CLIPModel'}[kind]], 'model_type': kind}
  if kind == 'siglip':
    return out | {'vision_config': vision, 'text_config': words | {'projection_size': image.width}}
  size = {'projection_dim': options.width}
  return out | size | {'vision_config': vision | size, 'text_config': words | size}


def kind_of(options: Any) -> str:
  """siglip or clip, by config.loss."""
  return _KINDS[options.name]


def write(weights: Weights, options: Any) -> dict[str, np.ndarray]:
  """{their name: array} of all parameters of a run that `config_json` has accepted."""
  kind = kind_of(options)
  of_text = {name: weights.params[name] for name in _TEXT if name in weights.params}
  image = dataclasses.replace(weights, params={name: tree for name, tree in weights.params.items()
                                               if name not in (*_TEXT, *_NUMBERS)})
  rules = huggingface_towers.siglip_rules() if kind == 'siglip' else huggingface_towers.clip_rules()
  towers = huggingface_towers.joined_queries(layout.write(image, rules))
  flat = layer_names.flat(of_text)
  bound = rules_lib.bind(huggingface_pairs.text_rules(kind), {name: array.shape for name, array in flat.items()})
  numbers = {theirs: np.asarray(weights.params[ours], np.float32).reshape((1,) if kind == 'siglip' else ())
             for ours, theirs in _NUMBERS.items() if ours in weights.params}
  return {f'vision_model.{name}': array for name, array in towers.items()} | rules_lib.write(bound, flat, {}) | numbers


def tokenizer_config(file: str | None, kind: str, tokenizer: Any, clean: str) -> dict[str, Any] | None:
  """The tokenizer_config.json of a tokenizer's file; None without a file. Texts are cleaned and padded as in training.

  A siglip has read the padding. In a clip no token sees later ones, and the end pads.
  """
  if file is None:
    return None
  expected = _CLEANED['json' if file.endswith('.json') else 'model']
  if clean not in expected:
    raise UserError(f'data.text.clean={clean}: a tokenizer of transformers in {file} has {" or ".join(expected)}')
  pad = tokenizer.pad if kind == 'siglip' else tokenizer.end
  out = {'model_max_length': tokenizer.length, 'padding_side': 'right', 'do_lower_case': expected[clean]}
  if not file.endswith('.json'):
    if pad != tokenizer.end:
      raise UserError(f'{file}: texts are padded by the token of number {pad}; SiglipTokenizer pads by the end, '
                      f'{tokenizer.end}')
    return out | {'tokenizer_class': 'SiglipTokenizer', 'pad_token': '</s>'}
  names = {entry['id']: entry['content'] for entry in tensors.read_json(pathlib.Path(file)).get('added_tokens') or []}
  if pad not in names:
    raise UserError(f'{file}: none of its added_tokens has the number {pad}, by which texts are padded')
  return out | {'tokenizer_class': 'PreTrainedTokenizerFast', 'pad_token': names[pad]}


def _shape(config):
  return {'hidden_size': config.width, 'num_hidden_layers': config.depth, 'num_attention_heads': config.num_heads,
          'intermediate_size': config.mlp_dim, 'layer_norm_eps': config.epsilon, 'hidden_act': _GELU[config.gelu]}
