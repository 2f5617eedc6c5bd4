"""The image tower of an OpenCLIP: open_clip_model.safetensors beside open_clip_config.json.

It is OpenCLIP's own Vision Transformer, or a model of timm. As with other towers, the projection into the space of
texts is left out; `open_clip_pairs` reads both towers with it.
"""

from typing import Any

import numpy as np

from vit_jax.data.preprocessing import alike, parse
from vit_jax.errors import UserError
from vit_jax.interop import architectures, derived, layout, pairs, timm
from vit_jax.interop.entries import Entries
from vit_jax.interop.rules import Axes, Rule, Tokens, dense, mlp, norm, same
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights

CONFIG, FILE = 'open_clip_config.json', 'open_clip_model.safetensors'
_CLIP = {'mean': (0.48145466, 0.4578275, 0.40821073), 'std': (0.26862954, 0.26130258, 0.27577711)}
# Options of the blocks of both towers that change what they compute, and which no model here has.
_BLOCKS = ('qk_norm', 'scaled_cosine_attn', 'scale_heads', 'scale_attn_inner', 'scale_attn', 'scale_fc')
_OF_TIMM = ('timm_model_name', 'timm_model_pretrained', 'timm_pool', 'timm_proj', 'timm_proj_bias', 'timm_drop',
            'timm_drop_path')
_VISION_FREE = ('patch_dropout', 'output_tokens', 'attn_pooler_queries', 'attn_pooler_heads', 'pos_embed_type')


def read(tensors: Tensors, config: dict[str, Any], without: tuple[str, ...] = ()) -> Weights:
  """Reads the image tower, a backbone without a head.

  Args:
    tensors: those of the file, of both towers.
    config: its open_clip_config.json.
    without: see `layout.read`.

  Raises:
    UserError: an entry that is not supported or not known, or tensors that do not fit.
  """
  e = model_entries(config, tensors.source)
  vision = section(e, 'vision_cfg', tensors.source)
  quick = e.switched('quick_gelu')
  e.close()
  alone = pairs.only(tensors, lambda name: name.startswith('visual.'))
  preprocessing = _preprocessing(config, vision, tensors.source)
  if vision.get('timm_model_name'):
    return _of_timm(alone, vision, preprocessing, without)
  return _own(alone, vision, quick, preprocessing, without)


def model_entries(config: dict[str, Any], where: str) -> Entries:
  """The entries of model_cfg, of which those about the training and the text tower are taken."""
  model = config.get('model_cfg')
  if not isinstance(model, dict):
    raise UserError(f'{where}: its {CONFIG}: expected an object model_cfg, got {model!r}')
  e = Entries(model, f'{where}: model_cfg in its {CONFIG}')
  e.free('embed_dim', 'text_cfg', 'init_logit_scale', 'init_logit_bias', 'nonscalar_logit_scale', 'custom_text')
  return e


def section(e: Entries, key: str, where: str) -> Entries:
  """The entries of vision_cfg or text_cfg."""
  found = e.get(key)
  if not isinstance(found, dict):
    raise UserError(f'{where}: {key} in its {CONFIG}: expected an object, got {found!r}')
  return Entries(found, f'{where}: {key} in its {CONFIG}')


def _preprocessing(config, vision, where):
  """As OpenCLIP's evaluation prepares pictures."""
  given = config.get('preprocess_cfg') or {}
  if not isinstance(given, dict):
    raise UserError(f'{where}: preprocess_cfg in its {CONFIG}: expected an object, got {given!r}')
  cfg = Entries(given, f'{where}: preprocess_cfg in its {CONFIG}')
  size = vision.get('image_size', 224)
  cfg.only('size', None, size, [size, size] if isinstance(size, int) else size)
  cfg.only('mode', 'RGB')
  cfg.free('fill_color')  # of resize_mode=longest
  fields = {'size': [size, size] if isinstance(size, int) else size,
            'interpolation': cfg.get('interpolation', 'bicubic'),
            'squeeze': cfg.choose('resize_mode', [('shortest', False), ('squash', True)], 'shortest')}
  try:
    fields |= {key: alike(cfg.get(key, _CLIP[key])) for key in ('mean', 'std')}
  except (TypeError, ValueError) as error:
    raise UserError(f'{where}: the preprocess_cfg in its {CONFIG} cannot be interpreted ({error})') from error
  cfg.close()
  return parse(fields, where)


def _of_timm(tensors, vision, preprocessing, without):
  """A model of timm: its tensors are visual.trunk.*."""
  name, pool = vision.get('timm_model_name'), vision.get('timm_pool', 'avg')
  kind, arguments = architectures.meaning(name, tensors.source)
  own = arguments.get('global_pool', 'token' if kind.startswith('VisionTransformer') else 'avg')
  projection = vision.choose('timm_proj', [('linear', 'linear'), ('none', 'none'), ('mlp', 'mlp')], 'linear')
  if projection != 'none' and pool not in ('', own):  # timm then changes the pooling, and leaves the norms as they were
    raise vision.refused('timm_pool', f"expected {own!r} or '', as in {name}, with timm_proj={projection!r}")
  vision.free(*_OF_TIMM, *_VISION_FREE, 'image_size', 'layers', 'width', 'patch_size', 'head_width', 'mlp_ratio')
  vision.close()
  trunk = pairs.only(tensors, lambda name: name.startswith('visual.trunk.'))
  trunk = derived.renamed(trunk, lambda name: name.removeprefix('visual.trunk.'))
  p = preprocessing
  cfg = {'input_size': [p.channels, *p.size], 'mean': list(p.mean), 'std': list(p.std), 'crop_pct': p.crop,
         'interpolation': p.interpolation, 'crop_mode': 'squash' if p.squeeze else 'center'}
  args = {'global_pool': pool} if pool and pool != own else {}
  return timm.read(trunk, {'architecture': name, 'model_args': args, 'pretrained_cfg': cfg}, without)


def _own(tensors, vision, quick, preprocessing, without):
  """OpenCLIP's own Vision Transformer."""
  where = tensors.source
  if not isinstance(vision.get('layers', 12), int):
    raise vision.refused('layers', 'expected a number: its ResNets are not supported')
  pool = vision.choose('pool_type', [('tok', 'cls'), ('avg', 'gap')], 'tok')
  pre_norm = not vision.switched('no_ln_pre')
  fields = {**block_fields(vision, tensors, 'visual.transformer.resblocks', quick),
            'num_heads': vision.get('width', 768) // vision.get('head_width', 64), 'pool': pool, 'pre_norm': pre_norm,
            'patch_size': vision.get('patch_size', 16), 'global_tokens': int(pool == 'gap'),
            'last_norm': 'pooled' if vision.switched('final_ln_after_pool') else 'tokens'}
  scale = vision.get('ls_init_value')
  fields['layer_scale'] = None if scale is None else float(scale)
  vision.only('attentional_pool', False)
  vision.free('image_size', *_OF_TIMM, *_VISION_FREE)
  vision.close()
  weights = Weights(where, 'vit', fields, {}, {}, preprocessing)
  if not pre_norm:
    shape = (fields['width'],)
    tensors = derived.replaced(tensors, {'visual.conv1.bias': (shape, lambda: np.zeros(shape, np.float32))})
  rules = _rules('cls' if pool == 'cls' else 'global_tokens')
  return layout.read(tensors, weights, None, rules, (*without, 'visual.proj'))


def block_fields(e: Entries, tensors: Tensors, blocks: str, quick: bool) -> dict[str, Any]:
  """The fields of width, depth, MLP, GELU and epsilon that both towers have. Raises UserError for options of blocks."""
  up = tensors.shapes.get(f'{blocks}.0.mlp.c_fc.weight')
  if up is None:
    raise UserError(f'{tensors.source}: has no {blocks}.0.mlp.c_fc.weight; is it another architecture?')
  e.free('mlp_ratio', 'layers', 'width')  # the tensors show them
  e.only('block_type', None, 'default', 'custom')
  for key in _BLOCKS:
    e.only(key, False)
  gelu = e.choose('act_kwargs', [(None, 'exact'), ({}, 'exact'), ({'approximate': 'none'}, 'exact'),
                                 ({'approximate': 'tanh'}, 'tanh')], None)
  norms = e.get('norm_kwargs', {})
  if not isinstance(norms, dict) or set(norms) - {'eps'}:
    raise e.refused('norm_kwargs', "expected {'eps': ..}")
  if quick and gelu != 'exact':
    raise e.refused('act_kwargs', 'expected none with quick_gelu')
  depth = len({name.removeprefix(f'{blocks}.').partition('.')[0] for name in tensors.shapes
               if name.startswith(f'{blocks}.')})
  return {'width': up[1], 'mlp_dim': up[0], 'depth': depth, 'gelu': 'quick' if quick else gelu,
          'epsilon': float(norms.get('eps', 1e-5))}


def block_rules(block: str, theirs: str) -> list[Rule]:
  """The rules of a block of either tower."""
  return [*norm(f'{block}.norm1', f'{theirs}.ln_1'), *norm(f'{block}.norm2', f'{theirs}.ln_2'),
          Axes(f'{block}.attention.qkv.kernel', 'D H 3 K', (f'{theirs}.attn.in_proj_weight',), '(3 H K) D'),
          Axes(f'{block}.attention.qkv.bias', 'H 3 K', (f'{theirs}.attn.in_proj_bias',), '(3 H K)'),
          *dense(f'{block}.attention.out', f'{theirs}.attn.out_proj', 'H K O', 'O (H K)'),
          *mlp(f'{block}.mlp', f'{theirs}.mlp.c_fc', f'{theirs}.mlp.c_proj'),
          *(rule for i in (1, 2) for rule in same(f'{block}.scale{i}', 'D', f'{theirs}.ls_{i}.gamma'))]


def _rules(token):
  tokens = Tokens((token,), (('visual.class_embedding', 1),), 'visual.positional_embedding', axes=())
  return [*same('patch_embed.proj.kernel', '(P Q C) O', 'visual.conv1.weight', 'O C P Q'),
          *same('patch_embed.proj.bias', 'O', 'visual.conv1.bias'), tokens, *norm('pre_norm', 'visual.ln_pre'),
          *block_rules('encoder.blocks.{i}', 'visual.transformer.resblocks.{i}'), *norm('norm', 'visual.ln_post')]
