"""timm (PyTorch Image Models): safetensors, and a config.json with the name of the architecture.

Widths and depths are read from tensor shapes, so the config.json is optional for pictures of 224 x 224.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from vit_jax.data.preprocessing import alike, parse
from vit_jax.errors import UserError
from vit_jax.interop import layout
from vit_jax.interop.rules import Axes, Rule, Tokens, attention, batch_norm, conv, dense, mlp, norm, patches, same
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights
from vit_jax.models import resnet, vit

_UNUSED = ('*.attn_mask',)  # tables in older files, which are now computed
_HEADS = {fields['width']: fields['num_heads'] for fields in vit.SIZES.values()}
_IMAGENET = {'mean': (0.485, 0.456, 0.406), 'std': (0.229, 0.224, 0.225)}


def _encoder_block(ours, theirs):
  return [*norm(f'{ours}.norm1', f'{theirs}.norm1'), *norm(f'{ours}.norm2', f'{theirs}.norm2'),
          *attention(f'{ours}.attention', [f'{theirs}.attn.qkv'], f'{theirs}.attn.proj'),
          *mlp(f'{ours}.mlp', f'{theirs}.mlp.fc1', f'{theirs}.mlp.fc2')]


def _transformer_rules(config) -> list[Rule]:
  """ViT and DeiT."""
  block, theirs, pool = 'encoder.blocks.{i}', 'blocks.{i}', 'attention_pool'
  return [
      *patches('patch_embed.proj', 'patch_embed.proj'),
      Tokens(('cls', 'distillation'), ('cls_token', 'dist_token'), 'pos_embed'),
      Tokens(('cls',), ('cls_token',), 'pos_embed'), *same('pos_embed', 'T D', 'pos_embed', '1 T D'),
      *_encoder_block(block, theirs),
      *(rule for i in (1, 2) for rule in same(f'{block}.scale{i}', 'D', f'{theirs}.ls{i}.gamma')),
      *norm('norm', 'norm'), *dense('head', 'head'), *dense('distillation_head', 'head_dist'),
      *same(f'{pool}.probe', '1 D', 'attn_pool.latent', '1 1 D'),
      *same(f'{pool}.query.kernel', 'D H K', 'attn_pool.q.weight', '(H K) D'),
      *same(f'{pool}.query.bias', 'H K', 'attn_pool.q.bias', '(H K)'),
      Axes(f'{pool}.key_value.kernel', 'D H 2 K', ('attn_pool.kv.weight',), '(2 H K) D'),
      Axes(f'{pool}.key_value.bias', 'H 2 K', ('attn_pool.kv.bias',), '(2 H K)'),
      *dense(f'{pool}.out', 'attn_pool.proj', 'H K O', 'O (H K)'), *norm(f'{pool}.norm', 'attn_pool.norm'),
      *mlp(f'{pool}.mlp', 'attn_pool.mlp.fc1', 'attn_pool.mlp.fc2')]


def _swin_rules(config) -> list[Rule]:
  block, theirs = 'stages.{i}.blocks.{j}', 'layers.{i}.blocks.{j}'
  return [*patches('patch_embed', 'patch_embed.proj'), *norm('patch_norm', 'patch_embed.norm'),
          *_encoder_block(block, theirs),
          *same(f'{block}.bias_table', 'N H', f'{theirs}.attn.relative_position_bias_table'),
          *norm('merges.{i}.norm', 'layers.{i1}.downsample.norm'),
          *dense('merges.{i}.proj', 'layers.{i1}.downsample.reduction'),
          *norm('norm', 'norm'), *dense('head', 'head.fc')]


def _resnet_rules(config) -> list[Rule]:
  if config.stem == 'half':
    return _regnet_rules(config)
  block, theirs = 'stages.{i}.blocks.{j}', 'layer{i1}.{j}'
  return [*conv('stem.conv', 'conv1'), *batch_norm('stem.norm', 'bn1'),
          *conv(f'{block}.convs.{{k}}.conv', f'{theirs}.conv{{k1}}'),
          *batch_norm(f'{block}.convs.{{k}}.norm', f'{theirs}.bn{{k1}}'),
          *conv(f'{block}.shortcut.conv', f'{theirs}.downsample.0'),
          *batch_norm(f'{block}.shortcut.norm', f'{theirs}.downsample.1'), *dense('head', 'fc')]


def _regnet_rules(config) -> list[Rule]:
  block, theirs = 'stages.{i}.blocks.{j}', 's{i1}.b{j1}'
  pairs = [('stem', 'stem'), (f'{block}.convs.{{k}}', f'{theirs}.conv{{k1}}'),
           (f'{block}.shortcut', f'{theirs}.downsample')]
  return [*(rule for ours, their in pairs
            for rule in conv(f'{ours}.conv', f'{their}.conv') + batch_norm(f'{ours}.norm', f'{their}.bn')),
          *dense(f'{block}.squeeze_excite.down', f'{theirs}.se.fc1', 'I O', 'O I 1 1'),
          *dense(f'{block}.squeeze_excite.up', f'{theirs}.se.fc2', 'I O', 'O I 1 1'), *dense('head', 'head.fc')]


def _convnext_rules(config) -> list[Rule]:
  block, theirs = 'stages.{i}.blocks.{j}', 'stages.{i}.blocks.{j}'
  return [*conv('patches.0.conv', 'stem.0'), *norm('patches.0.norm', 'stem.1'),
          *norm('patches.{i}.norm', 'stages.{i}.downsample.0'), *conv('patches.{i}.conv', 'stages.{i}.downsample.1'),
          *conv(f'{block}.conv', f'{theirs}.conv_dw'), *norm(f'{block}.norm', f'{theirs}.norm'),
          *mlp(f'{block}.mlp', f'{theirs}.mlp.fc1', f'{theirs}.mlp.fc2'),
          *same(f'{block}.scale', 'D', f'{theirs}.gamma'),
          *norm('norm', 'head.norm'), *dense('head', 'head.fc')]


def _count(shapes, pattern):
  """The number of distinct groups that a pattern matches at the start of the names."""
  return len({match.groups() for name in shapes if (match := re.match(pattern, name))})


def _depths(shapes, pattern):
  """The number of blocks in each stage; `pattern` captures (stage, block)."""
  found = [match.groups() for name in shapes if (match := re.match(pattern, name))]
  stages = sorted({int(stage) for stage, _ in found})
  return tuple(len({block for stage, block in found if int(stage) == s}) for s in stages)


def _transformer_fields(shapes, args):
  width, _, patch, _ = shapes['patch_embed.proj.weight']
  heads = args.get('num_heads', _HEADS.get(width))
  if heads is None:
    raise UserError(f'the number of heads for a width of {width} is not in the file: expected a config.json beside it '
                    'with num_heads in model_args')
  pool = 'map' if 'attn_pool.latent' in shapes else 'cls' if 'cls_token' in shapes else 'gap'
  if args.get('global_pool', {'cls': 'token', 'gap': 'avg', 'map': 'map'}[pool]) not in ('token', 'avg', 'map'):
    raise UserError(f"global_pool: expected 'token', 'avg' or 'map', got {args['global_pool']!r}")
  if pool == 'cls' and args.get('global_pool') == 'avg':
    raise UserError("global_pool: expected 'token' for a model with a class token, got 'avg'")
  return {'patch_size': patch, 'width': width, 'depth': _count(shapes, r'blocks\.(\d+)\.'), 'num_heads': heads,
          'mlp_dim': shapes['blocks.0.mlp.fc1.weight'][0], 'qkv_bias': 'blocks.0.attn.qkv.bias' in shapes, 'pool': pool,
          'pos_embed': 'learned' if 'pos_embed' in shapes else 'none',
          'gelu': 'tanh' if args.get('act_layer') == 'gelu_tanh' else 'exact',
          'layer_scale': float(args.get('init_values') or 1e-5) if 'blocks.0.ls1.gamma' in shapes else None}


def _swin_fields(shapes, args):
  width, _, patch, _ = shapes['patch_embed.proj.weight']
  tables = {int(m[1]): shape for name, shape in shapes.items()
            if (m := re.match(r'layers\.(\d+)\.blocks\.0\.attn\.relative_position_bias_table', name))}
  window = (math.isqrt(tables[0][0]) + 1) // 2
  return {'patch_size': patch, 'width': width, 'depths': _depths(shapes, r'layers\.(\d+)\.blocks\.(\d+)\.'),
          'num_heads': tuple(tables[i][1] for i in sorted(tables)), 'window_size': window,
          'mlp_ratio': shapes['layers.0.blocks.0.mlp.fc1.weight'][0] // width}


def _resnet_fields(shapes, args):
  depths = _depths(shapes, r'layer(\d+)\.(\d+)\.')
  last = 'conv3' if 'layer1.0.conv3.weight' in shapes else 'conv2'
  widths = tuple(shapes[f'layer{i + 1}.0.{last}.weight'][0] for i in range(len(depths)))
  out = {'depths': depths, 'widths': widths, 'stem_width': shapes['conv1.weight'][0],
         'block': 'bottleneck' if last == 'conv3' else 'basic'}
  if last == 'conv3':
    out['bottleneck'] = widths[0] // shapes['layer1.0.conv2.weight'][0]
    if shapes['layer1.0.conv2.weight'][1] != shapes['layer1.0.conv1.weight'][0]:
      out['group_width'] = shapes['layer1.0.conv2.weight'][1]
  return out


def _regnet_fields(shapes, args):
  depths = _depths(shapes, r's(\d+)\.b(\d+)\.')
  widths = tuple(shapes[f's{i + 1}.b1.conv3.conv.weight'][0] for i in range(len(depths)))
  return {'depths': depths, 'widths': widths, 'stem': 'half', 'stem_width': shapes['stem.conv.weight'][0],
          'bottleneck': widths[0] // shapes['s1.b1.conv2.conv.weight'][0], 'squeeze_excite':
          's1.b1.se.fc1.weight' in shapes, 'group_width': shapes['s1.b1.conv2.conv.weight'][1]}


def _convnext_fields(shapes, args):
  depths = _depths(shapes, r'stages\.(\d+)\.blocks\.(\d+)\.')
  return {'patch_size': shapes['stem.0.weight'][2], 'depths': depths,
          'widths': tuple(shapes[f'stages.{i}.blocks.0.conv_dw.weight'][0] for i in range(len(depths))),
          'kernel_size': shapes['stages.0.blocks.0.conv_dw.weight'][2]}


@dataclasses.dataclass(frozen=True)
class Layout:
  """A kind of timm model, recognized by its tensor names."""
  family: str
  signature: tuple[str, ...]  # tensors that together occur in no other kind
  architecture: str  # the timm architecture whose arguments can express any model of this kind
  first: str  # the layer that reads the pictures
  classifier: str
  fields: Callable[[Any, Any], dict[str, Any]]
  rules: Callable[[Any], list[Rule]]


LAYOUTS = (
    Layout('deit', ('blocks.0.attn.qkv.weight', 'dist_token'), 'deit_base_distilled_patch16_224', 'patch_embed.proj',
           'head', _transformer_fields, _transformer_rules),
    Layout('vit', ('blocks.0.attn.qkv.weight', 'patch_embed.proj.weight'), 'vit_base_patch16_224', 'patch_embed.proj',
           'head', _transformer_fields, _transformer_rules),
    Layout('swin', ('layers.0.blocks.0.attn.relative_position_bias_table',), 'swin_tiny_patch4_window7_224',
           'patch_embed.proj', 'head.fc', _swin_fields, _swin_rules),
    Layout('resnet', ('conv1.weight', 'layer1.0.conv1.weight'), 'resnet50', 'conv1', 'fc', _resnet_fields,
           _resnet_rules),
    Layout('resnet', ('stem.conv.weight', 's1.b1.conv2.conv.weight'), 'regnety_002', 'stem.conv', 'head.fc',
           _regnet_fields, _regnet_rules),
    Layout('convnext', ('stem.0.weight', 'stages.0.blocks.0.conv_dw.weight'), 'convnext_tiny', 'stem.0', 'head.fc',
           _convnext_fields, _convnext_rules),
)


def read(tensors: Tensors, config: dict[str, Any], without: tuple[str, ...] = ()) -> Weights:
  """Reads the weights of a timm model.

  Args:
    tensors: the tensors of its file.
    config: its config.json; {} if there is none, which assumes the preprocessing of timm's ImageNet models.
    without: see `layout.read`.

  Raises:
    UserError: an unsupported model, or tensors that do not fit.
  """
  where, shapes = tensors.source, tensors.shapes
  form = next((form for form in LAYOUTS if all(name in shapes for name in form.signature)), None)
  if form is None:
    raise UserError(f'{where}: expected the tensor names of a supported timm model (ViT, DeiT, Swin, ResNet, RegNet, '
                    'ConvNeXt), or a config.json of transformers beside the file; found neither')
  args = config.get('model_args') if isinstance(config.get('model_args'), dict) else {}
  args = {'global_pool': config['global_pool']} | args if config.get('global_pool') and form.family == 'vit' else args
  try:
    model = form.fields(shapes, args)
  except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
    raise UserError(f'{where}: has the names of a timm {form.family}, but not the shapes ({error})') from error
  except UserError as error:
    raise UserError(f'{where}: {error}') from error
  preprocessing = _preprocessing(config.get('pretrained_cfg') or config, args, shapes, model, form, where)
  classes = layout.num_classes(tensors, form.classifier)
  names = config.get('label_names')
  names = tuple(map(str, names)) if isinstance(names, list) and len(names) == classes else None
  weights = Weights(where, form.family, model, {}, {}, preprocessing, names)
  return layout.read(tensors, weights, classes, form.rules(weights.config), without + _UNUSED)


def _preprocessing(cfg, args, shapes, model, form, where):
  cfg = cfg if isinstance(cfg, dict) else {}
  try:
    channels, *size = cfg.get('input_size') or (shapes[f'{form.first}.weight'][1], 224, 224)
    if args.get('img_size'):
      size = args['img_size']
    elif 'input_size' not in cfg and 'pos_embed' in shapes:  # square, like all timm models
      tokens = shapes['pos_embed'][1] - sum(name in shapes for name in ('cls_token', 'dist_token'))
      size = math.isqrt(tokens) * model['patch_size']
    crop, kind = cfg.get('crop_pct', 0.875), cfg.get('interpolation', 'bicubic')
    mean, std = (alike(cfg.get(key, _IMAGENET[key])) for key in ('mean', 'std'))
  except (TypeError, ValueError) as error:
    raise UserError(f'{where}: the pretrained_cfg in its config.json cannot be interpreted ({error})') from error
  return parse({'size': size, 'channels': channels, 'mean': mean, 'std': std, 'crop': crop, 'interpolation': kind,
                'squeeze': cfg.get('crop_mode') == 'squash'}, where)


def write(weights: Weights) -> dict[str, np.ndarray]:
  """{their name: array}."""
  return layout.write(weights, _form(weights).rules(weights.config))


def _form(weights):
  regnet = weights.family == 'resnet' and weights.config.stem == 'half'
  forms = [f for f in LAYOUTS if f.family == weights.family and f.architecture.startswith('regnet') == regnet]
  if not forms:
    raise UserError(f'{weights.source}: conversion of a {weights.family} to timm is not supported')
  return forms[0]


def config_json(weights: Weights) -> dict[str, Any]:
  """The config.json from which timm.create_model('local-dir:FOLDER') builds the model.

  Raises:
    UserError: timm does not have the model.
  """
  form, p = _form(weights), weights.preprocessing
  mean, std = p.per_channel()
  architecture, args = _arguments(weights, form)
  classes = weights.num_classes or 0
  cfg = {'input_size': [p.channels, *p.size], 'interpolation': p.interpolation, 'crop_pct': p.crop, 'mean': mean,
         'std': std, 'crop_mode': 'squash' if p.squeeze else 'center', 'num_classes': classes, 'first_conv': form.first,
         'classifier': ['head', 'head_dist'] if weights.family == 'deit' else form.classifier}
  names = {'label_names': list(weights.class_names)} if weights.class_names else {}
  return {'architecture': architecture, 'num_classes': classes, 'pretrained_cfg': cfg,
          'model_args': args | ({'in_chans': p.channels} if p.channels != 3 else {}), **names}


def _arguments(weights, form) -> tuple[str, dict[str, Any]]:
  """(architecture, the arguments with which it is this model)."""
  c, image = weights.config, {'img_size': list(weights.preprocessing.size)}
  refuse = lambda what: UserError(f'{weights.source}: timm does not have {what}; try --to=bundle')
  if weights.family in ('vit', 'deit'):
    layout.check_representable(weights, ('patch_size', 'width', 'depth', 'mlp_dim', 'num_heads', 'pool', 'pos_embed',
                                         'qkv_bias', 'layer_scale', 'gelu'), 'timm')
    if c.pos_embed not in ('learned', 'none'):
      raise refuse(f'pos_embed={c.pos_embed}')
    own = {'patch_size': c.patch_size, 'embed_dim': c.width, 'depth': c.depth, 'num_heads': c.num_heads,
           'mlp_ratio': c.mlp_dim / c.width, 'qkv_bias': c.qkv_bias, 'init_values': c.layer_scale}
    if weights.family == 'vit':
      own |= {'class_token': c.pool == 'cls', 'fc_norm': False,
              'global_pool': {'cls': 'token', 'gap': 'avg', 'map': 'map'}[c.pool]}
    if c.gelu == 'tanh':
      own['act_layer'] = 'gelu_tanh'
    if c.pos_embed == 'none':
      own['pos_embed'] = 'none'
    return form.architecture, image | own
  if weights.family == 'swin':
    layout.check_representable(weights, ('patch_size', 'width', 'depths', 'num_heads', 'window_size', 'mlp_ratio'),
                               'timm')
    return form.architecture, image | {
        'patch_size': c.patch_size, 'embed_dim': c.width, 'depths': list(c.depths), 'num_heads': list(c.num_heads),
        'window_size': c.window_size, 'mlp_ratio': float(c.mlp_ratio)}
  if weights.family == 'convnext':
    layout.check_representable(weights, ('patch_size', 'depths', 'widths', 'kernel_size', 'layer_scale'), 'timm')
    return form.architecture, {'depths': list(c.depths), 'dims': list(c.widths), 'patch_size': c.patch_size,
                               'kernel_sizes': c.kernel_size}
  return _cnn_architecture(c, refuse)


def _cnn_architecture(config, refuse):
  """The architecture by name, because timm builds CNNs only in the published widths."""
  same_shape = lambda name: resnet.Config(**resnet.size(name), dtype=config.dtype) == config
  name = next((name for name in resnet.SIZES if same_shape(name)), None)
  if name is None:
    raise refuse('a ResNet or RegNetY of a shape that is not published')
  if name.startswith('ResNet'):
    return name.lower().replace('-', ''), {}
  size = name.removeprefix('RegNetY-')
  number = round(float(size[:-2]) * (10 if size.endswith('GF') else 0.01))
  return f'regnety_{number:03d}', {}
