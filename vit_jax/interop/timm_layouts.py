"""The classes of timm that can be read: what each argument of their constructors means here, and their tensor names.

An argument that changes the model is honoured or refused; `Entries` refuses what no line here names. Widths and depths
are read from the tensors.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

from vit_jax.errors import UserError
from vit_jax.interop import derived, timm_eva, timm_rules
from vit_jax.interop.entries import Entries
from vit_jax.interop.rules import Rule, Shapes
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.timm_arguments import BATCH_NORM, GELU, NORMS_5, NORMS_6, RELU, finish
from vit_jax.models import swin

_SWIN_FREE = ('img_size', 'patch_size', 'embed_dim', 'depths', 'num_heads', 'strict_img_size', 'dynamic_img_size')


@dataclasses.dataclass(frozen=True)
class Layout:
  """A class of timm.

  Attributes:
    family: the family in this project.
    first: the layer that reads the pictures.
    classifier: the name of the classifier's linear map.
    read: (shapes, arguments) -> (the fields of our config, the rules of the names). Raises UserError for an argument
      that is not supported, and KeyError, IndexError, ValueError, TypeError or ZeroDivisionError for wrong shapes.
    derive: (tensors, arguments) -> the tensors that the rules name.
    check: (the fields of our config, arguments, (height, width), source) -> None. Raises UserError for pictures of a
      size that timm treats in another way.
  """
  family: str
  first: str
  classifier: str
  read: Callable[[Shapes, Entries], tuple[dict[str, Any], Sequence[Rule]]]
  derive: Callable[[Tensors, Entries], Tensors] = lambda tensors, entries: tensors
  check: Callable[[dict[str, Any], Entries, tuple[int, int], str], None] = lambda *_: None


def _depths(shapes, pattern):
  """The number of blocks in each stage; `pattern` captures (stage, block)."""
  found = [match.groups() for name in shapes if (match := re.match(pattern, name))]
  stages = sorted({int(stage) for stage, _ in found})
  return tuple(len({block for stage, block in found if int(stage) == s}) for s in stages)


def _vit(shapes, e):
  return _transformer(shapes, e, distilled=False)


def _deit(shapes, e):
  return _transformer(shapes, e, distilled=True)


def _transformer(shapes, e, distilled):
  width, _, patch, _ = shapes['patch_embed.proj.weight']
  pool = e.choose('global_pool', [('token', 'cls')] if distilled else
                  [('token', 'cls'), ('avg', 'gap'), ('map', 'map')], 'token')
  tokens = _tokens(e, pool, distilled)
  out = {'patch_size': patch, 'width': width, 'pool': pool, **_mlp(shapes, e),
         'depth': len({name.split('.')[1] for name in shapes if name.startswith('blocks.')}),
         'num_heads': e.get('num_heads', 12), 'qkv_bias': e.switched('qkv_bias', True),
         'qk_norm': e.switched('qk_norm'), 'pre_norm': e.switched('pre_norm'),
         'global_tokens': tokens.registers, 'last_norm': _last_norm(e, pool),
         'pos_embed': 'learned' if tokens.position else 'none',
         'epsilon': e.choose('norm_layer', [*((n, 1e-6) for n in NORMS_6), *((n, 1e-5) for n in NORMS_5)], None)}
  scale = e.get('init_values')
  out['layer_scale'] = float(scale) if scale else None
  for key in ('scale_attn_norm', 'scale_mlp_norm', 'pool_include_prefix'):
    e.only(key, False)
  e.only('proj_bias', True)
  e.only('block_fn', None, 'Block')
  e.only('attn_layer', None, 'Attention', 'attention')
  e.only('embed_layer', None, 'PatchEmbed')
  e.only('embed_norm_layer', None)
  finish(e, 'img_size', 'patch_size', 'embed_dim', 'depth', 'mlp_ratio', 'dynamic_img_size', 'dynamic_img_pad',
          'strict_img_size')
  return out, timm_rules.transformer(out['last_norm'], tokens, out.get('mlp') == 'swiglu')


def _tokens(e, pool, distilled):
  """The tokens before the patches, as `timm_rules.PrefixTokens`."""
  cls, registers = e.switched('class_token', True), e.get('reg_tokens', 0)
  position = e.choose('pos_embed', [('learn', True), ('', False), ('none', False)], 'learn')
  placed = not e.switched('no_embed_class')
  if not isinstance(registers, int) or registers < 0:
    raise e.refused('reg_tokens', 'expected a number')
  if not cls and pool == 'cls':
    raise e.refused('class_token', 'expected True with global_pool=token')
  if distilled and (registers or not position):
    raise e.refused('reg_tokens' if registers else 'pos_embed', 'a distilled model has neither registers nor lacks '
                    'positions')
  if pool == 'map' and (cls or registers):
    raise e.refused('class_token' if cls else 'reg_tokens', 'attention pooling reads all tokens here, and the patches '
                    'alone in timm')
  return timm_rules.PrefixTokens(cls, registers, pool == 'cls', distilled, position, placed)


def _mlp(shapes, e):
  kind = e.choose('mlp_layer', [(None, 'gelu'), ('Mlp', 'gelu'), ('mlp', 'gelu'),
                                ("GluMlp(act_layer='SiLU', gate_last=False)", 'swiglu')], None)
  hidden = shapes['blocks.0.mlp.fc1.weight'][0]
  if kind == 'swiglu':
    e.only('act_layer', 'SiLU', 'silu', 'swish')
    return {'mlp': kind, 'mlp_dim': hidden // 2}
  return {'mlp_dim': hidden, 'gelu': e.choose('act_layer', GELU, None)}


def _last_norm(e, pool):
  pooled = e.choose('fc_norm', [(None, pool == 'gap'), (False, False), (True, True)], None)
  return ('pooled' if pooled else 'tokens') if e.switched('final_norm', True) else 'none'


def _swin(shapes, e):
  heads = r'layers\.(\d+)\.blocks\.0\.attn\.relative_position_bias_table'
  out = _windowed(shapes, e, {int(m[1]): shape[1] for name, shape in shapes.items() if (m := re.match(heads, name))})
  out['epsilon'] = e.choose('norm_layer', [(None, 1e-5), ('layernorm', 1e-6), *((n, 1e-5) for n in NORMS_5)], None)
  e.only('head_dim', None)
  e.only('embed_layer', None, 'PatchEmbed')
  finish(e, *_SWIN_FREE)
  return out, timm_rules.swin()


def _swin_v2(shapes, e):
  heads = r'layers\.(\d+)\.blocks\.0\.attn\.logit_scale'
  out = _windowed(shapes, e, {int(m[1]): shape[0] for name, shape in shapes.items() if (m := re.match(heads, name))})
  trained = e.get('pretrained_window_sizes', ()) or ()
  trained = tuple(trained[:len(out['depths'])])
  if not all(isinstance(size, int) and size >= 0 for size in trained) or any(trained) and not all(trained):
    raise e.refused('pretrained_window_sizes', 'expected one number a stage, or 0 in all')
  e.only('norm_layer', None, *NORMS_5)
  e.only('act_layer', None, 'gelu')
  finish(e, *_SWIN_FREE)
  return out | swin.V2 | {'trained_windows': trained if any(trained) else ()}, timm_rules.swin(v2=True)


def _windowed(shapes, e, heads):
  """What Swin and Swin V2 have in common; `heads` are those of each stage."""
  width, _, patch, _ = shapes['patch_embed.proj.weight']
  window = e.get('window_size', 7)
  if isinstance(window, list) and len(set(map(str, window))) == 1:
    window = window[0]
  if not isinstance(window, int):
    raise e.refused('window_size', 'expected one size for all stages')
  ratio = e.get('mlp_ratio', 4)
  if not isinstance(ratio, (int, float)) or ratio != int(ratio):
    raise e.refused('mlp_ratio', 'expected a whole number')
  e.only('global_pool', 'avg')
  e.only('always_partition', False)
  e.only('qkv_bias', True)
  return {'patch_size': patch, 'width': width, 'depths': _depths(shapes, r'layers\.(\d+)\.blocks\.(\d+)\.'),
          'num_heads': tuple(heads[i] for i in sorted(heads)), 'window_size': window, 'mlp_ratio': int(ratio)}


def _check_border(model, e, size, where):
  """Refuses pictures whose border timm's Swin treats in another way than ours and the published one.

  It leaves out pixels that fill no patch, where ours fills patches up. It shifts windows before it fills up those at
  the border, so that others come together than where that is done first.
  """
  config = swin.Config(**model)
  if any(side % config.patch_size for side in size):
    raise UserError(f'{where}: pictures of {size[0]}x{size[1]} are no whole patches of {config.patch_size}; timm '
                    'leaves out the rest; not supported')
  for stage, grid in enumerate(swin.grids(config, (*size, 3))):
    shifted = swin.windows(grid, config.window_size)[1]
    if any(shifted.shift) and shifted.padded != grid:
      raise UserError(f'{where}: pictures of {size[0]}x{size[1]} have {grid[0]}x{grid[1]} patches in stage {stage}, '
                      f'which are no whole windows of {config.window_size}; timm fills up windows after it shifts '
                      'them; not supported')


def _with_key_biases(tensors, e):
  return derived.with_key_biases(tensors, '.q_bias', '.k_bias')


def _resnet(shapes, e):
  e.only('output_stride', 32)
  e.only('global_pool', 'avg')
  deep = e.choose('stem_type', [('', False), (None, False), ('deep', True), ('deep_tiered', True)], '')
  average = e.switched('avg_down')
  e.only('block_reduce_first', 1)
  e.only('down_kernel_size', 1)
  e.only('aa_layer', None)
  e.only('block_args', None, {})
  e.only('act_layer', *RELU)
  e.only('norm_layer', *BATCH_NORM)
  for key in ('replace_stem_pool', 'pruned'):
    e.only(key, False)
  depths = _depths(shapes, r'layer(\d+)\.(\d+)\.')
  block = e.choose('block', [('BasicBlock', 'basic'), ('Bottleneck', 'bottleneck')], None)
  last = 'conv3' if block == 'bottleneck' else 'conv2'
  widths = tuple(shapes[f'layer{i + 1}.0.{last}.weight'][0] for i in range(len(depths)))
  out = {'depths': depths, 'widths': widths, 'block': block, 'average_shortcut': average,
         'stem_width': shapes['conv1.6.weight' if deep else 'conv1.weight'][0], 'stem': 'deep' if deep else 'quarter'}
  if deep:
    out['deep_widths'] = tuple(shapes[f'conv1.{i}.weight'][0] for i in (0, 3))
  if block == 'bottleneck':
    inner, per_group, *_ = shapes['layer1.0.conv2.weight']
    if widths[0] % inner:
      raise e.refused('base_width', f'{inner} channels inside a block that gives {widths[0]}: expected a whole part')
    out |= {'bottleneck': widths[0] // inner, 'groups': inner // per_group}
  if len(depths) > 4:  # from the fifth on, timm widens the kernels instead of halving the picture
    raise e.refused('layers', 'expected at most four stages')
  finish(e, 'layers', 'channels', 'stem_width', 'cardinality', 'base_width')
  return out, timm_rules.resnet(deep, average)


def _regnet(shapes, e):
  depths = _depths(shapes, r's(\d+)\.b(\d+)\.')
  widths = tuple(shapes[f's{i + 1}.b1.conv3.conv.weight'][0] for i in range(len(depths)))
  per_group = max(shapes[f's{i + 1}.b1.conv2.conv.weight'][1] for i in range(len(depths)))
  inner = shapes['s1.b1.conv2.conv.weight'][0]
  if widths[0] % inner:
    raise e.refused('bottle_ratio', f'{inner} channels inside a block that gives {widths[0]}: expected a whole part')
  out = {'depths': depths, 'widths': widths, 'stem': 'half', 'stem_width': shapes['stem.conv.weight'][0],
         'bottleneck': widths[0] // inner, 'group_width': per_group,
         'squeeze_excite': 's1.b1.se.fc1.weight' in shapes}
  if len(depths) > 4:
    raise e.refused('depth', f'expected at most four stages, got {len(depths)}')
  e.only('output_stride', 32)
  e.only('global_pool', 'avg')
  e.only('downsample', 'conv1x1')
  e.only('num_features', 0)
  e.only('act_layer', *RELU)
  e.only('norm_layer', *BATCH_NORM)
  e.only('linear_out', False)
  e.only('preact', False)
  finish(e, 'depth', 'w0', 'wa', 'wm', 'group_size', 'bottle_ratio', 'se_ratio', 'group_min_ratio', 'stem_width')
  return out, timm_rules.regnet()


def _convnext(shapes, e):
  depths = _depths(shapes, r'stages\.(\d+)\.blocks\.(\d+)\.')
  patch, scale = shapes['stem.0.weight'][2], e.get('ls_init_value') if 'ls_init_value' in e.values else 1e-6
  out = {'patch_size': patch, 'depths': depths,
         'widths': tuple(shapes[f'stages.{i}.blocks.0.conv_dw.weight'][0] for i in range(len(depths))),
         'kernel_size': shapes['stages.0.blocks.0.conv_dw.weight'][2], 'gelu': e.choose('act_layer', GELU, 'gelu'),
         'grn': e.switched('use_grn'), 'layer_scale': None if scale is None else float(scale)}
  out['epsilon'] = out['last_epsilon'] = float(e.get('norm_eps', 1e-6))
  if patch * 2 ** (len(depths) - 1) > 32:  # from there on, timm widens the kernels instead of halving the picture
    raise e.refused('patch_size', f'{patch} and {len(depths)} stages: expected a stride of at most 32 in all')
  conv_mlp = e.switched('conv_mlp')
  e.only('global_pool', 'avg')
  e.only('output_stride', 32)
  e.only('stem_type', 'patch')
  e.only('head_norm_first', False)
  e.only('head_hidden_size', None)
  e.only('conv_bias', True)
  e.only('norm_layer', None, 'layernorm', *(('layernorm2d',) if conv_mlp else ()))
  finish(e, 'patch_size', 'depths', 'dims', 'kernel_sizes')
  return out, timm_rules.convnext(conv_mlp)


LAYOUTS = {
    'VisionTransformer': Layout('vit', 'patch_embed.proj', 'head', _vit),
    'VisionTransformerDistilled': Layout('deit', 'patch_embed.proj', 'head', _deit),
    'Eva': Layout('vit', 'patch_embed.proj', 'head', timm_eva.read, timm_eva.derive, timm_eva.check),
    'SwinTransformer': Layout('swin', 'patch_embed.proj', 'head.fc', _swin, check=_check_border),
    'SwinTransformerV2': Layout('swin', 'patch_embed.proj', 'head.fc', _swin_v2, _with_key_biases, _check_border),
    'ResNet': Layout('resnet', 'conv1', 'fc', _resnet),
    'RegNet': Layout('resnet', 'stem.conv', 'head.fc', _regnet),
    'ConvNeXt': Layout('convnext', 'stem.0', 'head.fc', _convnext),
}
