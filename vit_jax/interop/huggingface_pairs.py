"""Both towers of transformers' SiglipModel and CLIPModel: their config, their tensors and their tokenizer.

The image tower is read as any other (`huggingface`). This adds the text tower, the projections, and scale and bias.
"""

import dataclasses
import pathlib
import re
import string
from typing import Any, NamedTuple

import numpy as np

from vit_jax.errors import UserError
from vit_jax.interop import huggingface, layer_names, layout
from vit_jax.interop import rules as rules_lib
from vit_jax.interop import tensors as tensors_lib
from vit_jax.interop.entries import Entries
from vit_jax.interop.huggingface_towers import GELU
from vit_jax.interop.rules import Rule, attention, dense, mlp, norm, same
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights

KINDS = ('siglip', 'clip')
_CONFIG, _TOKENIZER_CONFIG = 'config.json', 'tokenizer_config.json'
_TOKENIZERS = ('tokenizer.json', 'spiece.model')
# What their config leaves out has these values (SiglipTextConfig, CLIPTextConfig).
_DEFAULTS = {'siglip': dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12, vocab_size=32_000,
                            max_position_embeddings=64, hidden_act='gelu_pytorch_tanh', layer_norm_eps=1e-6),
             'clip': dict(hidden_size=512, intermediate_size=2048, num_attention_heads=8, vocab_size=49_408,
                          max_position_embeddings=77, hidden_act='quick_gelu', layer_norm_eps=1e-5)}


class Vocabulary(NamedTuple):
  """How texts become tokens.

  Attributes:
    file: of the tokenizer; None: CLIP's, which transformers' files may lack.
    pad: the name of the token after the end; '' for 0.
    lower: whether texts are put in lower case first.
    plain: whether their punctuation is taken out first.
  """
  file: str | None
  pad: str
  lower: bool
  plain: bool


@dataclasses.dataclass(frozen=True)
class Pairs:
  """A model of two towers in a folder.

  Attributes:
    image: the image tower.
    loss: fields of `objectives.contrast.Config`.
    length: tokens of a text.
    vocabulary: how texts become tokens.
    tensors: of the file.
    kind: siglip or clip.
  """
  image: Weights
  loss: dict[str, Any]
  length: int
  vocabulary: Vocabulary
  tensors: Tensors
  kind: str

  def params(self, like: dict) -> dict:
    """The parameters of the whole model, whose shapes are `like`. Raises UserError for tensors that do not fit."""
    ours = {name: tree for name, tree in like.items() if name in ('text', 'projection')}
    bound = rules_lib.bind(text_rules(self.kind), layer_names.flat_shapes(ours))
    layout.check_names(_text_alone(self.tensors), bound, {}, ())
    flat = rules_lib.read(bound, self.tensors.__getitem__, {})
    numbers = {'log_scale': 'logit_scale'} | ({'bias': 'logit_bias'} if self.kind == 'siglip' else {})
    return self.image.params | layer_names.stacked(flat.__getitem__, ours) | {
        name: np.asarray(self.tensors[theirs], np.float32).reshape(()) for name, theirs in numbers.items()}


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
  return Pairs(image, loss, length, _vocabulary(folder, kind), tensors, kind)


def _vocabulary(folder, kind):
  file = next((folder / name for name in _TOKENIZERS if (folder / name).exists()), None)
  if file is None and kind == 'siglip':
    raise UserError(f'{folder}: expected a tokenizer, {" or ".join(_TOKENIZERS)}; found none')
  config = folder / _TOKENIZER_CONFIG
  said = tensors_lib.read_json(config) if config.exists() else {}
  if kind == 'clip':  # what follows the end changes nothing: no token sees later ones
    return Vocabulary(None if file is None else str(file), '', False, False)
  pad = said.get('pad_token', '</s>')
  pad = pad.get('content') if isinstance(pad, dict) else pad
  pieces = file.suffix == '.model'  # a tokenizer.json has its own normaliser
  return Vocabulary(str(file), pad, said.get('do_lower_case', pieces) is True, pieces)


def pad_number(vocabulary: Vocabulary, end: int) -> int:
  """The number of the token that pads texts; `end` is that of the end. Raises UserError if the tokenizer has none."""
  numbers = {'</s>': end, '<pad>': 0}  # of SentencePiece
  if vocabulary.pad and vocabulary.file.endswith('.json'):
    added = tensors_lib.read_json(pathlib.Path(vocabulary.file)).get('added_tokens') or []
    numbers = {entry['content']: entry['id'] for entry in added}
  if not vocabulary.pad:
    return 0
  if vocabulary.pad not in numbers:
    raise UserError(f'{vocabulary.file}: has no token {vocabulary.pad!r}, which pads texts by its {_TOKENIZER_CONFIG}')
  return numbers[vocabulary.pad]


def cleaned(vocabulary: Vocabulary, text: str) -> str:
  """A text as the tokenizer of SigLIP prepares it: perhaps in lower case, without punctuation and doubled spaces."""
  if vocabulary.plain:
    text = re.sub(r'\s+', ' ', text.translate(str.maketrans('', '', string.punctuation))).strip()
  return text.lower() if vocabulary.lower else text


def _text_alone(tensors):
  """The tensors of the text tower and of the projections."""
  wanted = lambda name: name.startswith(('text_model.', 'text_projection.', 'visual_projection.'))
  return dataclasses.replace(tensors, shapes={n: shape for n, shape in tensors.shapes.items() if wanted(n)})


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
