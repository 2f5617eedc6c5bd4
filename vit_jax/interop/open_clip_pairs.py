"""Both towers of an OpenCLIP, for `predict --names`: its text tower, the projections, scale, bias and tokenizer.

Names are cleaned as OpenCLIP cleans them, without the repair of wrongly decoded text (ftfy).
"""

import pathlib

from vit_jax.errors import UserError
from vit_jax.interop import huggingface_pairs, open_clip, pairs
from vit_jax.interop import tensors as tensors_lib
from vit_jax.interop.pairs import Pairs, Vocabulary
from vit_jax.interop.rules import Rule, dense, norm, same
from vit_jax.interop.tensors import Tensors

_OF_IMAGES = ('visual.proj', 'visual.head.proj.weight')  # the projection of the image tower, [D, E] and [E, D]
_LARGEST = 'argmax'  # reads the token of the largest number, which CLIP's end has


def read(folder: pathlib.Path, tensors: Tensors) -> Pairs:
  """Reads both towers.

  Args:
    folder: has open_clip_config.json, and a tokenizer.json unless texts become CLIP's tokens.
    tensors: those of the file.

  Raises:
    UserError: a setting or a tensor is not supported; the message names it.
  """
  config, where = tensors_lib.read_json(folder / open_clip.CONFIG), tensors.source
  image = open_clip.read(tensors, config)
  model = open_clip.model_entries(config, where)
  e, prefix = open_clip.section(model, 'text_cfg', where), _prefix(tensors)
  fields = {**open_clip.block_fields(e, tensors, f'{prefix}transformer.resblocks', model.switched('quick_gelu')),
            'num_heads': e.get('heads', 8), 'vocab_size': e.get('vocab_size', 49_408),
            'causal': not e.switched('no_causal_mask'),
            'pool': e.choose('pool_type', [(_LARGEST, 'end'), ('last', 'last')], _LARGEST)}
  vocabulary = _vocabulary(folder, e, fields['pool'])
  length = e.get('context_length', 77)
  e.only('embed_cls', False)
  e.only('hf_model_name', None)
  e.only('proj_type', 'linear')
  e.only('ls_init_value', None)
  e.free('proj_bias', 'output_tokens', 'hf_model_pretrained', 'hf_proj_type', 'hf_pooler_type', 'final_ln_after_pool',
         'pad_id', 'eos_id')  # the last two belong to other pools
  e.close()
  projection = next((name for name in _OF_IMAGES if name in tensors.shapes), None)
  biased = f'{prefix}text_projection.weight' in tensors.shapes
  if (projection is None) != biased:
    raise UserError(f'{where}: expected a projection with a bias of the text tower alone, or one without of each tower')
  extra = [name for name in tensors.shapes if name.startswith('visual.head.') and name != projection]
  if extra:
    raise UserError(f'{where}: {extra[0]}: expected one linear projection of the image tower, without a bias')
  numbers = {'log_scale': 'logit_scale'} | ({'bias': 'logit_bias'} if 'logit_bias' in tensors.shapes else {})
  width = None if projection is None else tensors.shapes[projection][1 if projection == _OF_IMAGES[0] else 0]
  loss = {'name': 'sigmoid' if 'bias' in numbers else 'softmax', 'width': width, 'text': fields}
  alone = pairs.only(tensors, lambda name: name == projection or not name.startswith('visual.'))
  return Pairs(image, loss, length, vocabulary, alone, _rules(prefix, projection, biased), numbers)


def _prefix(tensors):
  return 'text.' if 'text.token_embedding.weight' in tensors.shapes else ''


def _vocabulary(folder, e, pool):
  """How texts become tokens: by a tokenizer.json, or as CLIP's."""
  file, named = folder / 'tokenizer.json', e.get('hf_tokenizer_name')
  kwargs = e.get('tokenizer_kwargs', {})
  e.only('tokenizer_mode', None)
  if not isinstance(kwargs, dict) or set(kwargs) - {'clean'}:
    raise e.refused('tokenizer_kwargs', "expected {'clean': ..}")
  if not named and kwargs.get('clean', 'lower') != 'lower':
    raise e.refused('tokenizer_kwargs', "expected {'clean': 'lower'} with CLIP's tokens")
  if named and not file.exists():
    raise UserError(f'{folder}: expected its tokenizer, tokenizer.json; found none')
  if pool == 'end' and named:
    raise e.refused('pool_type', f"expected 'last' with hf_tokenizer_name={named!r}, whose end may not be the largest")
  if not named:  # what follows the end changes nothing: no token sees later ones
    return Vocabulary(str(file) if file.exists() else None, '', 'whitespace_lower')
  return Vocabulary(str(file), huggingface_pairs.pad_token(folder), _cleaner(e, kwargs))


def _cleaner(e, kwargs):
  kinds = {'whitespace': 'whitespace', 'lower': 'whitespace_lower', 'canonicalize': 'canonical'}
  kind = kwargs.get('clean', 'whitespace')
  if kind not in kinds:
    raise e.refused('tokenizer_kwargs', f'expected clean to be one of {", ".join(kinds)}')
  return kinds[kind]


def _rules(prefix: str, projection: str | None, biased: bool) -> list[Rule]:
  """The rules of the text tower and the projections."""
  of_text = dense('text.projection', f'{prefix}text_projection') if biased else same(
      'text.projection.kernel', 'I O', f'{prefix}text_projection')
  of_images = [] if projection is None else same('projection.kernel', 'I O', projection,
                                                 'I O' if projection == _OF_IMAGES[0] else 'O I')
  return [*same('text.tokens', 'V D', f'{prefix}token_embedding.weight'),
          *same('text.positions', 'T D', f'{prefix}positional_embedding'),
          *open_clip.block_rules('text.encoder.blocks.{i}', f'{prefix}transformer.resblocks.{{i}}'),
          *norm('text.norm', f'{prefix}ln_final'), *of_text, *of_images]
