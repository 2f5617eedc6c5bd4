"""Both towers of transformers' SiglipModel and CLIPModel: their config, their tensors and their tokenizer.

The image tower is read as any other (`huggingface`). This adds the text tower, the projections, and scale and bias.
"""

import pathlib

from vit_jax.errors import UserError
from vit_jax.interop import huggingface, pairs
from vit_jax.interop import tensors as tensors_lib
from vit_jax.interop.entries import Entries
from vit_jax.interop.huggingface_towers import GELU
from vit_jax.interop.pairs import Pairs, Vocabulary
from vit_jax.interop.rules import Rule, attention, dense, mlp, norm, same
from vit_jax.interop.tensors import Tensors

KINDS = ('siglip', 'clip')
_CONFIG, _TOKENIZER_CONFIG = 'config.json', 'tokenizer_config.json'
_TOKENIZERS = ('tokenizer.json', 'spiece.model')
# What their config leaves out has these values (SiglipTextConfig, CLIPTextConfig).
_DEFAULTS = {'siglip': dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, vocab_size=32_000,
                            max_position_embeddings=64, hidden_act='gelu_pytorch_tanh', layer_norm_eps=1e-6),
             'clip': dict(hidden_size=512, intermediate_size=2048, num_attention_heads=8, vocab_size=49_408,
                          max_position_embeddings=77, hidden_act='quick_gelu', layer_norm_eps=1e-5)}


def is_pairs(folder: pathlib.Path) -> bool:
  """Whether a folder has a model of two towers."""
  return (folder / _CONFIG).exists() and tensors_lib.read_json(folder / _CONFIG).get('model_type') in KINDS


def read(folder: pathlib.Path, tensors: Tensors) -> Pairs:
  """Reads a model of two towers.

  Args:
    folder: has config.json, the tokenizer, and perhaps preprocessor_config.json.
    tensors: those of the model.

  Raises:
    UserError: a setting or a tensor is not supported; the message names it.
  """
  config, where = tensors_lib.read_json(folder / _CONFIG), tensors.source
  kind, processor = config['model_type'], folder / 'preprocessor_config.json'
  image = huggingface.read(tensors, config, tensors_lib.read_json(processor) if processor.exists() else None)
  text = config.get('text_config') or {}
  if not isinstance(text, dict):
    raise UserError(f'{where}: text_config in its config.json: expected an object, got {text!r}')
  e, d = Entries(text, f'{where}: text_config in its config.json'), _DEFAULTS[kind]
  get = lambda key: e.get(key, d[key])
  fields = {'width': get('hidden_size'), 'depth': e.get('num_hidden_layers', 12), 'mlp_dim': get('intermediate_size'),
            'num_heads': get('num_attention_heads'), 'epsilon': get('layer_norm_eps'),
            'vocab_size': get('vocab_size'), 'gelu': e.choose('hidden_act', GELU, d['hidden_act']),
            'causal': kind == 'clip', 'pool': 'end' if kind == 'clip' else 'last'}
  e.free('projection_dim', 'projection_size')  # the tensors show them
  length = get('max_position_embeddings')
  huggingface.check_common(e)
  width = None
  if kind == 'clip':
    width = tensors.shapes.get('visual_projection.weight', (None,))[0]
  loss = {'name': 'softmax' if kind == 'clip' else 'sigmoid', 'width': width, 'text': fields}
  numbers = {'log_scale': 'logit_scale'} | ({'bias': 'logit_bias'} if kind == 'siglip' else {})
  of_text = ('text_model.', 'text_projection.', 'visual_projection.')
  alone = pairs.only(tensors, lambda name: name.startswith(of_text) or name in numbers.values())
  return Pairs(image, loss, length, _vocabulary(folder, kind), alone, text_rules(kind), numbers)


def _vocabulary(folder, kind):
  file = next((folder / name for name in _TOKENIZERS if (folder / name).exists()), None)
  if file is None and kind == 'siglip':
    raise UserError(f'{folder}: expected a tokenizer, {" or ".join(_TOKENIZERS)}; found none')
  if kind == 'clip':  # what follows the end changes nothing: no token sees later ones
    return Vocabulary(None if file is None else str(file), '', 'none')
  pieces = file.suffix == '.model'  # a tokenizer.json has its own normaliser
  lower = _tokenizer_config(folder).get('do_lower_case', pieces) is True
  clean = {(True, True): 'plain_lower', (True, False): 'plain', (False, True): 'lower', (False, False): 'none'}
  return Vocabulary(str(file), pad_token(folder), clean[pieces, lower])


def _tokenizer_config(folder):
  config = folder / _TOKENIZER_CONFIG
  return tensors_lib.read_json(config) if config.exists() else {}


def pad_token(folder: pathlib.Path) -> str:
  """The name of the token that pads texts."""
  pad = _tokenizer_config(folder).get('pad_token', '</s>')
  return pad.get('content') if isinstance(pad, dict) else pad


def text_rules(kind: str) -> list[Rule]:
  """The rules of the text tower and the projections."""
  block, theirs = 'text.encoder.blocks.{i}', 'text_model.encoder.layers.{i}'
  embeddings = 'text_model.embeddings'
  projections = dense('text.projection', 'text_model.head') if kind == 'siglip' else [
      *same('text.projection.kernel', 'I O', 'text_projection.weight', 'O I'),
      *same('projection.kernel', 'I O', 'visual_projection.weight', 'O I')]
  return [*same('text.tokens', 'V D', f'{embeddings}.token_embedding.weight'),
          *same('text.positions', 'T D', f'{embeddings}.position_embedding.weight'),
          *norm(f'{block}.norm1', f'{theirs}.layer_norm1'), *norm(f'{block}.norm2', f'{theirs}.layer_norm2'),
          *attention(f'{block}.attention', [f'{theirs}.self_attn.{name}_proj' for name in 'qkv'],
                     f'{theirs}.self_attn.out_proj'),
          *mlp(f'{block}.mlp', f'{theirs}.mlp.fc1', f'{theirs}.mlp.fc2'),
          *norm('text.norm', 'text_model.final_layer_norm'), *projections]
