"""Hugging Face transformers: a folder with config.json, preprocessor_config.json and safetensors.

Tensor names are those of files on the hub, which every version of transformers reads and writes. Version 5 uses other
names in memory (`_IN_MEMORY`).
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_jax.data import pictures
from vit_jax.data.preprocessing import Preprocessing, alike, parse
from vit_jax.errors import UserError, nearest
from vit_jax.interop import layout
from vit_jax.interop.rules import Rule, Tokens, attention, batch_norm, conv, dense, mlp, norm, patches, same
from vit_jax.interop.tensors import Tensors
from vit_jax.interop.weights import Weights

# gelu_new and gelu_fast are other implementations of the tanh approximation.
_GELU = {'gelu': 'exact', 'gelu_pytorch_tanh': 'tanh', 'gelu_new': 'tanh', 'gelu_fast': 'tanh'}


@dataclasses.dataclass(frozen=True)
class Layout:
  """One model_type of transformers.

  Attributes:
    family: the family in this project.
    architecture: the class of transformers with a classifier.
    classifier: the name of the classifier's linear map.
    fields: {our field: (key of their config, their default)}.
    must: {key of their config: the only value that our model supports}, which is also their default.
    rules: maps our config to the table of names.
    fixed: our fields that the model_type implies.
    prefix: what the names of the backbone's tensors begin with; '': the model_type.
    unused: patterns of names of tensors that belong to training alone.
  """
  family: str
  architecture: str
  classifier: str
  fields: Mapping[str, tuple[str, Any]]
  must: Mapping[str, Any]
  rules: Callable[[Any], list[Rule]]
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prefix: str = ''
  unused: tuple[str, ...] = ()


def _encoder_block(ours, theirs, own):
  q_k_v = [f'{theirs}.attention.{own}.{name}' for name in ('query', 'key', 'value')]
  return [*norm(f'{ours}.norm1', f'{theirs}.layernorm_before'), *norm(f'{ours}.norm2', f'{theirs}.layernorm_after'),
          *attention(f'{ours}.attention', q_k_v, f'{theirs}.attention.output.dense'),
          *mlp(f'{ours}.mlp', f'{theirs}.intermediate.dense', f'{theirs}.output.dense')]


def _transformer(name, tokens, their_tokens, heads):
  """ViT and DeiT."""
  embeddings = f'{name}.embeddings'
  return lambda config: [
      *patches('patch_embed.proj', f'{embeddings}.patch_embeddings.projection'),
      Tokens(tokens, tuple(f'{embeddings}.{t}' for t in their_tokens), f'{embeddings}.position_embeddings'),
      *_encoder_block('encoder.blocks.{i}', f'{name}.encoder.layer.{{i}}', 'attention'),
      *norm('norm', f'{name}.layernorm'), *(rule for ours, theirs in heads for rule in dense(ours, theirs))]


def _swin(config):
  block, theirs = 'stages.{i}.blocks.{j}', 'swin.encoder.layers.{i}.blocks.{j}'
  return [*patches('patch_embed', 'swin.embeddings.patch_embeddings.projection'),
          *norm('patch_norm', 'swin.embeddings.norm'), *_encoder_block(block, theirs, 'self'),
          *same(f'{block}.bias_table', 'N H', f'{theirs}.attention.self.relative_position_bias_table'),
          *norm('merges.{i}.norm', 'swin.encoder.layers.{i}.downsample.norm'),
          *dense('merges.{i}.proj', 'swin.encoder.layers.{i}.downsample.reduction'),
          *norm('norm', 'swin.layernorm'), *dense('head', 'classifier')]


def _cnn(name):
  """ResNet and RegNet."""
  def rules(config):
    block, theirs = 'stages.{i}.blocks.{j}', f'{name}.encoder.stages.{{i}}.layers.{{j}}'
    pairs = [('stem', f'{name}.embedder.embedder'), (f'{block}.shortcut', f'{theirs}.shortcut')]
    places = (0, 1, 3) if config.squeeze_excite else (0, 1, 2)
    pairs += [(f'{block}.convs.{i}', f'{theirs}.layer.{place}') for i, place in enumerate(places)]
    return [*(rule for ours, their in pairs for rule in _conv_norm(ours, their)), *dense('head', 'classifier.1'),
            *dense(f'{block}.squeeze_excite.down', f'{theirs}.layer.2.attention.0', 'I O', 'O I 1 1'),
            *dense(f'{block}.squeeze_excite.up', f'{theirs}.layer.2.attention.2', 'I O', 'O I 1 1')]
  return rules


def _conv_norm(ours, theirs):
  return conv(f'{ours}.conv', f'{theirs}.convolution') + batch_norm(f'{ours}.norm', f'{theirs}.normalization')


def _convnext(config):
  block, theirs = 'stages.{i}.blocks.{j}', 'convnext.encoder.stages.{i}.layers.{j}'
  between = 'convnext.encoder.stages.{i}.downsampling_layer'
  return [*conv('patches.0.conv', 'convnext.embeddings.patch_embeddings'),
          *norm('patches.0.norm', 'convnext.embeddings.layernorm'),
          *norm('patches.{i}.norm', f'{between}.0'), *conv('patches.{i}.conv', f'{between}.1'),
          *conv(f'{block}.conv', f'{theirs}.dwconv'), *norm(f'{block}.norm', f'{theirs}.layernorm'),
          *mlp(f'{block}.mlp', f'{theirs}.pwconv1', f'{theirs}.pwconv2'),
          *same(f'{block}.scale', 'D', f'{theirs}.layer_scale_parameter'),
          *norm('norm', 'convnext.layernorm'), *dense('head', 'classifier')]


_TRANSFORMER = {'width': ('hidden_size', 768), 'depth': ('num_hidden_layers', 12), 'num_heads': (
    'num_attention_heads', 12), 'mlp_dim': ('intermediate_size', 3072), 'patch_size': ('patch_size', 16),
    'qkv_bias': ('qkv_bias', True), 'gelu': ('hidden_act', 'gelu'), 'epsilon': ('layer_norm_eps', 1e-12)}
_CNN = {'depths': ('depths', None), 'widths': ('hidden_sizes', None), 'stem_width': ('embedding_size', None)}

LAYOUTS = {
    'vit': Layout('vit', 'ViTForImageClassification', 'classifier', _TRANSFORMER, {}, _transformer(
        'vit', ('cls',), ('cls_token',), [('head', 'classifier')]), {'pool': 'cls', 'pos_embed': 'learned'}),
    # Masked autoencoders: the encoder, a backbone; what it was trained with is left out.
    'vit_mae': Layout('vit', 'ViTMAEForPreTraining', 'classifier', _TRANSFORMER, {}, _transformer(
        'vit', ('cls',), ('cls_token',), []), {'pool': 'cls', 'pos_embed': 'learned'}, 'vit', ('decoder.*',)),
    'deit': Layout('deit', 'DeiTForImageClassificationWithTeacher', 'cls_classifier', _TRANSFORMER, {}, _transformer(
        'deit', ('cls', 'distillation'), ('cls_token', 'distillation_token'),
        [('head', 'cls_classifier'), ('distillation_head', 'distillation_classifier')]), {'pos_embed': 'learned'}),
    'swin': Layout('swin', 'SwinForImageClassification', 'classifier', {
        'patch_size': ('patch_size', 4), 'width': ('embed_dim', 96), 'depths': ('depths', (2, 2, 6, 2)),
        'num_heads': ('num_heads', (3, 6, 12, 24)), 'window_size': ('window_size', 7), 'mlp_ratio': ('mlp_ratio', 4.0),
        'epsilon': ('layer_norm_eps', 1e-5)},
        {'qkv_bias': True, 'hidden_act': 'gelu', 'use_absolute_embeddings': False}, _swin),
    'resnet': Layout('resnet', 'ResNetForImageClassification', 'classifier.1', _CNN | {'block': (
        'layer_type', 'bottleneck')}, {'hidden_act': 'relu', 'downsample_in_first_stage': False,
                                       'downsample_in_bottleneck': False}, _cnn('resnet'), {'stem': 'quarter'}),
    'regnet': Layout('resnet', 'RegNetForImageClassification', 'classifier.1', _CNN | {
        'group_width': ('groups_width', 64), 'squeeze_excite': ('layer_type', 'y')}, {'hidden_act': 'relu'},
        _cnn('regnet'), {'stem': 'half', 'block': 'bottleneck', 'bottleneck': 1}),
    'convnext': Layout('convnext', 'ConvNextForImageClassification', 'classifier', {
        'patch_size': ('patch_size', 4), 'depths': ('depths', None), 'widths': ('hidden_sizes', None),
        'last_epsilon': ('layer_norm_eps', 1e-12), 'layer_scale': ('layer_scale_init_value', 1e-6)},
        {'hidden_act': 'gelu'}, _convnext, {'kernel_size': 7}),
}
# Conversions of field values that differ: (ours from theirs, theirs from ours).
_VALUES = {
    'gelu': (_GELU.get, {'exact': 'gelu', 'tanh': 'gelu_pytorch_tanh'}.get),
    'squeeze_excite': ({'y': True, 'x': False}.get, {True: 'y', False: 'x'}.get),
    'mlp_ratio': (lambda ratio: int(ratio) if ratio == int(ratio) else None, float),
}
_DEFAULTS = {  # defaults of fields that differ between model_types with the same table
    ('resnet', 'depths'): (3, 4, 6, 3), ('resnet', 'hidden_sizes'): (256, 512, 1024, 2048),
    ('resnet', 'embedding_size'): 64, ('regnet', 'depths'): (2, 6, 12, 2),
    ('regnet', 'hidden_sizes'): (128, 192, 512, 1088), ('regnet', 'embedding_size'): 32,
    ('convnext', 'depths'): (3, 3, 9, 3), ('convnext', 'hidden_sizes'): (96, 192, 384, 768)}

# (pattern of names in memory in transformers 5, replacement in files)
_IN_MEMORY = {
    'vit': ((r'(^|\.)layers\.(\d+)\.', r'\1encoder.layer.\2.'), (r'attention\.q_proj', 'attention.attention.query'),
            (r'attention\.k_proj', 'attention.attention.key'), (r'attention\.v_proj', 'attention.attention.value'),
            (r'o_proj', 'output.dense'), (r'mlp\.fc1', 'intermediate.dense'), (r'mlp\.fc2', 'output.dense')),
    'swin': ((r'attention\.q_proj', 'attention.self.query'), (r'attention\.k_proj', 'attention.self.key'),
             (r'attention\.v_proj', 'attention.self.value'), (r'o_proj', 'output.dense'),
             (r'attention\.relative_position_bias\.', 'attention.self.'),
             (r'mlp\.fc1', 'intermediate.dense'), (r'mlp\.fc2', 'output.dense'))}
_IN_MEMORY |= {kind: _IN_MEMORY['vit'] for kind in ('deit', 'vit_mae')}
_RESAMPLE = {number: name for name, number in pictures.INTERPOLATIONS.items()}
_UNUSED = ('*.pooler.dense.*',)  # in files of backbones; the classifiers of transformers do not use it either


def read(tensors: Tensors, config: dict[str, Any], processor: dict[str, Any] | None,
         without: tuple[str, ...] = ()) -> Weights:
  """Reads the weights of a model of transformers.

  Args:
    tensors: the tensors of its files.
    config: its config.json.
    processor: its preprocessor_config.json; None if there is none.
    without: see `layout.read`.

  Raises:
    UserError: an unsupported model or option, or tensors that do not fit.
  """
  where, kind = tensors.source, str(config.get('model_type'))
  if kind not in LAYOUTS:
    raise UserError(f'{where}: model_type={kind!r} is not supported{nearest(kind, LAYOUTS)}')
  form = LAYOUTS[kind]
  fields = _fields(form, kind, config, where)
  tensors = _in_file_names(tensors, kind)
  names = _class_names(config.get('id2label'))
  weights = Weights(where, form.family, fields, {}, {}, _preprocessing(config, processor, where), names)
  if kind == 'swin':
    _check_windows(weights)
  classes = layout.num_classes(tensors, form.classifier)
  if names is not None and len(names) != classes:
    weights = dataclasses.replace(weights, class_names=None)
  return layout.read(tensors, weights, classes, form.rules(weights.config), without + _UNUSED + form.unused)


def _fields(form, kind, config, where):
  """The fields of our Config from their config."""
  for key, value in form.must.items():
    if config.get(key, value) != value:
      raise UserError(f'{where}: {key}={config[key]!r} in its config.json: expected {value!r}, the only value that '
                      f'{form.family} supports')
  out = dict(form.fixed)
  for ours, (key, default) in form.fields.items():
    value = config.get(key)
    if value is None:
      value = _DEFAULTS.get((kind, key), default)
    try:
      value = _VALUES[ours][0](value) if ours in _VALUES else value
    except (TypeError, ValueError, OverflowError):
      value = None
    if value is None:
      raise UserError(f'{where}: {key}={config.get(key)!r} in its config.json: {form.family} does not support this '
                      f'{ours}')
    out[ours] = value
  return out


def _check_windows(weights):
  """Raises UserError for a picture size at which the windows of transformers differ from ours.

  If one side of a stage fits into a window, transformers uses square windows of that side and does not shift them. Here
  and in timm each side is treated separately. The logits therefore differ for elongated pictures with few patches.
  """
  config = weights.config
  sides = [-(-size // max(config.patch_size, 1)) for size in weights.preprocessing.size]
  for stage in range(len(config.depths)):
    if min(sides) <= config.window_size and sides[0] != sides[1]:
      raise UserError(f'{weights.source}: pictures of {weights.preprocessing.size} have {sides[0]}x{sides[1]} patches '
                      f'in stage {stage}, where windows of {config.window_size} differ from those of transformers; '
                      'expected square pictures or more patches')
    sides = [-(-side // 2) for side in sides]


def _in_file_names(tensors, kind):
  """The tensors under the names that they have in a file of the model with its classifier."""
  prefix = f'{LAYOUTS[kind].prefix or kind}.'
  bare = not any(name.startswith(prefix) for name in tensors.shapes)

  def rename(name):
    for pattern, replacement in _IN_MEMORY.get(kind, ()):
      name = re.sub(pattern, replacement, name)
    return prefix + name if bare and 'classifier' not in name else name
  back = {rename(name): name for name in tensors.shapes}
  return Tensors(tensors.source, {new: tensors.shapes[old] for new, old in back.items()}, tensors.others,
                 lambda name: tensors.load(back[name]))


def _class_names(id2label):
  """The class names; None if they are the defaults LABEL_0, LABEL_1, ..."""
  if not isinstance(id2label, dict):
    return None
  try:
    names = tuple(str(id2label[key]) for key in sorted(id2label, key=int))
  except ValueError:
    return None
  return None if all(name == f'LABEL_{i}' for i, name in enumerate(names)) else names


def _pair(value):
  """(height, width) from an int, a list or a dict; None if empty. Invalid values are returned unchanged."""
  if isinstance(value, dict):
    value = [value['height'], value.get('width')] if 'height' in value else next(iter(value.values()), None)
  return (value, value) if isinstance(value, int) else value or None


def _preprocessing(config, processor, where):
  """The preprocessing of an image processor: resize to a size, or resize the short side and crop."""
  p = processor or {}
  size, crop = _pair(p.get('size')), _pair(p.get('crop_size')) if p.get('do_center_crop') else None
  fields = {'size': _pair(config.get('image_size')) or crop or size or 224, 'channels': config.get('num_channels', 3),
            'squeeze': True}
  try:
    fields['interpolation'] = _RESAMPLE.get(p.get('resample', 2), 'bilinear')
    fields |= {'mean': alike(p.get('image_mean') or (0.5,)), 'std': alike(p.get('image_std') or (0.5,))}
    kind = str(p.get('image_processor_type') or p.get('feature_extractor_type'))
    if p.get('crop_pct') and 'ConvNext' in kind:  # only large pictures are resized without cropping
      if min(size) < 384:
        fields |= {'crop': p['crop_pct'], 'squeeze': False}
    elif crop:
      by_short_side = not isinstance(p['size'], dict) or 'shortest_edge' in p['size']
      fields |= {'crop': min(1.0, min(crop) / min(size)), 'squeeze': not by_short_side}
  except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
    raise UserError(f'{where}: its preprocessor_config.json cannot be interpreted ({error})') from error
  return parse(fields, where)


def config_json(weights: Weights) -> dict[str, Any]:
  """The config.json from which `from_pretrained` builds the model.

  Raises:
    UserError: transformers does not have the model.
  """
  kind, form = _kind(weights)
  config = weights.config
  for name, right in form.fixed.items():
    if getattr(config, name) != right:
      raise UserError(f'{weights.source}: model.{name}: transformers expects {right!r} in a {kind}, got '
                      f'{getattr(config, name)!r}; try --to=timm or --to=bundle')
  layout.check_representable(weights, {*form.fields, *form.fixed}, 'transformers')
  out = {'architectures': [form.architecture if not weights.headless else form.architecture.split('For')[0] + 'Model'],
         'model_type': kind, 'num_channels': weights.preprocessing.channels,
         'image_size': list(weights.preprocessing.size), **form.must}
  for ours, (key, _) in form.fields.items():
    value = getattr(config, ours)
    out[key] = _VALUES[ours][1](value) if ours in _VALUES else list(value) if isinstance(value, tuple) else value
  if kind == 'convnext':
    out['num_stages'] = len(config.depths)
  if not weights.headless:
    names = weights.class_names or [f'LABEL_{i}' for i in range(weights.num_classes)]
    out |= {'id2label': {str(i): name for i, name in enumerate(names)}, 'label2id': {n: i for i, n in enumerate(names)}}
  return out


def processor_json(preprocessing: Preprocessing) -> dict[str, Any]:
  """The preprocessor_config.json of a preprocessing."""
  p, (height, width) = preprocessing, preprocessing.size
  mean, std = p.per_channel()
  out = {'do_resize': True, 'do_rescale': True, 'rescale_factor': 1 / 255, 'do_normalize': True,
         'image_mean': mean, 'image_std': std,
         'resample': pictures.INTERPOLATIONS[p.interpolation]}
  if p.squeeze and p.crop == 1:
    return out | {'image_processor_type': 'ViTImageProcessor', 'size': {'height': height, 'width': width}}
  size = {'height': round(height / p.crop), 'width': round(width / p.crop)} if p.squeeze else {
      'shortest_edge': round(min(height, width) / p.crop)}
  return out | {'image_processor_type': 'DeiTImageProcessor' if p.squeeze else 'CLIPImageProcessor', 'size': size,
                'do_center_crop': True, 'crop_size': {'height': height, 'width': width}}


def write(weights: Weights) -> dict[str, np.ndarray]:
  """{their name: array}."""
  return layout.write(weights, _kind(weights)[1].rules(weights.config))


def _kind(weights):
  """(model_type, Layout) for a model of this project."""
  kind = weights.family
  if kind == 'resnet' and weights.config.stem == 'half':
    kind = 'regnet'
  if kind not in LAYOUTS:
    raise UserError(f'{weights.source}: transformers has no {weights.family}{nearest(weights.family, LAYOUTS)}')
  return kind, LAYOUTS[kind]
