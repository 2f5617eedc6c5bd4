"""Writing timm's files: the names of its tensors, and the config.json from which timm builds the model."""

from typing import Any

import numpy as np

from vit_jax.errors import UserError
from vit_jax.interop import layout, timm_rules
from vit_jax.interop.timm_layouts import LAYOUTS
from vit_jax.interop.weights import Weights
from vit_jax.models import resnet

_POOLS = {'cls': 'token', 'gap': 'avg', 'map': 'map'}


def write(weights: Weights) -> dict[str, np.ndarray]:
  """{their name: array}. Raises UserError if timm does not have the model."""
  return layout.write(weights, _rules(weights))


def _rules(weights):
  config = weights.config
  if weights.family in ('vit', 'deit'):
    tokens = timm_rules.PrefixTokens(config.pool == 'cls', config.global_tokens, config.pool == 'cls',
                                     weights.family == 'deit', config.pos_embed != 'none', not config.global_tokens)
    return timm_rules.transformer(config.last_norm, tokens, config.mlp == 'swiglu')
  return {'SwinTransformer': timm_rules.swin, 'ResNet': timm_rules.resnet, 'RegNet': timm_rules.regnet,
          'ConvNeXt': timm_rules.convnext}[_kind(weights)]()


def _kind(weights):
  """The class of timm."""
  if weights.family == 'resnet':
    return 'RegNet' if weights.config.stem == 'half' else 'ResNet'
  kinds = [kind for kind, form in LAYOUTS.items() if form.family == weights.family]
  if not kinds:
    raise UserError(f'{weights.source}: conversion of a {weights.family} to timm is not supported; try --to=bundle')
  return kinds[0]


def config_json(weights: Weights) -> dict[str, Any]:
  """The config.json from which timm.create_model('local-dir:FOLDER') builds the model.

  Raises:
    UserError: timm does not have the model.
  """
  form, p = LAYOUTS[_kind(weights)], weights.preprocessing
  mean, std = p.per_channel()
  architecture, args = _arguments(weights)
  classes = weights.num_classes or 0
  cfg = {'input_size': [p.channels, *p.size], 'interpolation': p.interpolation, 'crop_pct': p.crop, 'mean': mean,
         'std': std, 'crop_mode': 'squash' if p.squeeze else 'center', 'num_classes': classes, 'first_conv': form.first,
         'classifier': ['head', 'head_dist'] if weights.family == 'deit' else form.classifier}
  names = {'label_names': list(weights.class_names)} if weights.class_names else {}
  return {'architecture': architecture, 'num_classes': classes, 'pretrained_cfg': cfg,
          'model_args': args | ({'in_chans': p.channels} if p.channels != 3 else {}), **names}


def _arguments(weights) -> tuple[str, dict[str, Any]]:
  """(architecture, the arguments with which it is this model)."""
  c, image = weights.config, {'img_size': list(weights.preprocessing.size)}
  if weights.family in ('vit', 'deit'):
    name, own = _transformer(weights)
    return name, image | own
  if weights.family == 'swin':
    layout.check_representable(weights, ('patch_size', 'width', 'depths', 'num_heads', 'window_size', 'mlp_ratio'),
                               'timm')
    return 'swin_tiny_patch4_window7_224', image | {
        'patch_size': c.patch_size, 'embed_dim': c.width, 'depths': list(c.depths), 'num_heads': list(c.num_heads),
        'window_size': c.window_size, 'mlp_ratio': float(c.mlp_ratio)}
  if weights.family == 'convnext':
    return _convnext(weights)
  return _cnn_architecture(weights, c)


def _transformer(weights):
  c = weights.config
  layout.check_representable(weights, ('patch_size', 'width', 'depth', 'mlp_dim', 'num_heads', 'pool', 'pos_embed',
                                       'qkv_bias', 'layer_scale', 'gelu', 'mlp', 'qk_norm', 'pre_norm', 'last_norm',
                                       'global_tokens', 'epsilon'), 'timm')
  if c.pos_embed not in ('learned', 'none'):
    raise _refused(weights, f'pos_embed={c.pos_embed}')
  if c.global_tokens and c.pool == 'map' or weights.family == 'deit' and (c.global_tokens or c.pos_embed == 'none'):
    raise _refused(weights, f'{weights.family} models with global_tokens={c.global_tokens}, pool={c.pool} and '
                   f'pos_embed={c.pos_embed}')
  # JSON has no layers with arguments, so that they come with the name of an architecture.
  names = {1e-6: 'deit_base_distilled_patch16_224' if weights.family == 'deit' else 'vit_base_patch16_224',
           1e-5: 'vit_base_patch16_clip_224'}
  swiglu = c.mlp == 'swiglu'
  if c.epsilon not in names or (weights.family == 'deit' or swiglu) and c.epsilon != 1e-6:
    raise _refused(weights, f'{weights.family} models with epsilon={c.epsilon} and mlp={c.mlp}')
  own = {'patch_size': c.patch_size, 'embed_dim': c.width, 'depth': c.depth, 'num_heads': c.num_heads,
         'mlp_ratio': _ratio(c.mlp_dim * (2 if swiglu else 1), c.width), 'qkv_bias': c.qkv_bias,
         'init_values': c.layer_scale}
  if weights.family == 'vit':
    own |= {'class_token': c.pool == 'cls', 'fc_norm': c.last_norm == 'pooled', 'global_pool': _POOLS[c.pool],
            'pre_norm': c.pre_norm}
  own |= {'qk_norm': True} if c.qk_norm else {}
  own |= {'reg_tokens': c.global_tokens, 'no_embed_class': True} if c.global_tokens else {}
  own |= {'final_norm': False} if c.last_norm == 'none' else {}
  own |= {} if c.gelu == 'exact' or swiglu else {'act_layer': {'tanh': 'gelu_tanh', 'quick': 'quick_gelu'}[c.gelu]}
  own |= {'pos_embed': 'none'} if c.pos_embed == 'none' else {}
  return 'vit_giant_patch14_dinov2' if swiglu else names[c.epsilon], own


def _ratio(hidden, width):
  """A ratio from which int(width * ratio) gives the hidden size back."""
  ratio = hidden / width
  return ratio if int(width * ratio) == hidden else (hidden + 0.5) / width


def _convnext(weights):
  c = weights.config
  layout.check_representable(weights, ('patch_size', 'depths', 'widths', 'kernel_size', 'layer_scale', 'grn', 'gelu',
                                       'epsilon', 'last_epsilon'), 'timm')
  if c.epsilon != c.last_epsilon:
    raise _refused(weights, f'norms with different model.epsilon={c.epsilon} and model.last_epsilon={c.last_epsilon}')
  own = {'depths': list(c.depths), 'dims': list(c.widths), 'patch_size': c.patch_size, 'kernel_sizes': c.kernel_size,
         'ls_init_value': c.layer_scale}
  own |= {'use_grn': True} if c.grn else {}
  own |= {} if c.gelu == 'exact' else {'act_layer': {'tanh': 'gelu_tanh', 'quick': 'quick_gelu'}[c.gelu]}
  own |= {} if c.epsilon == 1e-6 else {'norm_eps': c.epsilon}
  return 'convnext_tiny', own


def _refused(weights, what):
  return UserError(f'{weights.source}: timm does not have {what}; try --to=bundle')


def _cnn_architecture(weights, config):
  """The architecture by name, because timm builds CNNs only in the published widths."""
  same_shape = lambda name: resnet.Config(**resnet.size(name), dtype=config.dtype) == config
  name = next((name for name in resnet.SIZES if same_shape(name)), None)
  if name is None:
    raise _refused(weights, 'a ResNet or RegNetY of a shape that is not published')
  if name.startswith('ResNet'):
    return name.lower().replace('-', ''), {}
  size = name.removeprefix('RegNetY-')
  number = round(float(size[:-2]) * (10 if size.endswith('GF') else 0.01))
  return f'regnety_{number:03d}', {}
