"""The classifiers of transformers that are read and written: their config's keys, and the names of their tensors."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from vit_jax.interop.rules import Rule, Tokens, attention, batch_norm, conv, dense, mlp, norm, patches, same
from vit_jax.models import swin

SEVERAL = 'multi_label_classification'  # the problem_type of classes of which a picture can have several

# gelu_new and gelu_fast are other implementations of the tanh approximation.
_GELU = {'gelu': 'exact', 'gelu_pytorch_tanh': 'tanh', 'gelu_new': 'tanh', 'gelu_fast': 'tanh', 'quick_gelu': 'quick'}


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
    free: keys of their config that the tensors show, or that belong to training alone.
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
  free: tuple[str, ...] = ()
  prefix: str = ''
  unused: tuple[str, ...] = ()


def encoder_block(ours, theirs, own):
  q_k_v = [f'{theirs}.attention.{own}.{name}' for name in ('query', 'key', 'value')]
  return [*norm(f'{ours}.norm1', f'{theirs}.layernorm_before'), *norm(f'{ours}.norm2', f'{theirs}.layernorm_after'),
          *attention(f'{ours}.attention', q_k_v, f'{theirs}.attention.output.dense'),
          *mlp(f'{ours}.mlp', f'{theirs}.intermediate.dense', f'{theirs}.output.dense')]


def _transformer(name, tokens, their_tokens, heads):
  """ViT and DeiT."""
  embeddings = f'{name}.embeddings'
  return lambda config: [
      *patches('patch_embed.proj', f'{embeddings}.patch_embeddings.projection'),
      Tokens(tokens, tuple((f'{embeddings}.{t}', 1) for t in their_tokens), f'{embeddings}.position_embeddings'),
      *encoder_block('encoder.blocks.{i}', f'{name}.encoder.layer.{{i}}', 'attention'),
      *norm('norm', f'{name}.layernorm'), *(rule for ours, theirs in heads for rule in dense(ours, theirs))]


def _swin(config):
  name = 'swinv2' if config.cosine else 'swin'
  block, theirs = 'stages.{i}.blocks.{j}', f'{name}.encoder.layers.{{i}}.blocks.{{j}}'
  network = f'{theirs}.attention.self.continuous_position_bias_mlp'
  return [*patches('patch_embed', f'{name}.embeddings.patch_embeddings.projection'),
          *norm('patch_norm', f'{name}.embeddings.norm'), *encoder_block(block, theirs, 'self'),
          *same(f'{block}.bias_table', 'N H', f'{theirs}.attention.self.relative_position_bias_table'),
          *same(f'{block}.attention.log_scale', 'H', f'{theirs}.attention.self.logit_scale', 'H 1 1'),
          *dense(f'{block}.bias_network.up', f'{network}.0'), *dense(f'{block}.bias_network.down', f'{network}.2'),
          *norm('merges.{i}.norm', f'{name}.encoder.layers.{{i}}.downsample.norm'),
          *dense('merges.{i}.proj', f'{name}.encoder.layers.{{i}}.downsample.reduction'),
          *norm('norm', f'{name}.layernorm'), *dense('head', 'classifier')]


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
  name = 'convnextv2' if config.grn else 'convnext'
  block, theirs = 'stages.{i}.blocks.{j}', f'{name}.encoder.stages.{{i}}.layers.{{j}}'
  between = f'{name}.encoder.stages.{{i}}.downsampling_layer'
  return [*conv('patches.0.conv', f'{name}.embeddings.patch_embeddings'),
          *norm('patches.0.norm', f'{name}.embeddings.layernorm'),
          *norm('patches.{i}.norm', f'{between}.0'), *conv('patches.{i}.conv', f'{between}.1'),
          *conv(f'{block}.conv', f'{theirs}.dwconv'), *norm(f'{block}.norm', f'{theirs}.layernorm'),
          *mlp(f'{block}.mlp', f'{theirs}.pwconv1', f'{theirs}.pwconv2'),
          *same(f'{block}.scale', 'D', f'{theirs}.layer_scale_parameter'),
          *same(f'{block}.mlp.grn.scale', 'D', f'{theirs}.grn.weight', '1 1 1 D'),
          *same(f'{block}.mlp.grn.bias', 'D', f'{theirs}.grn.bias', '1 1 1 D'),
          *norm('norm', f'{name}.layernorm'), *dense('head', 'classifier')]


def mae_decoder() -> list[Rule]:
  """The decoder of a masked autoencoder (`objectives.reconstruct.Decoder`), but for its table of positions."""
  return [*dense('decoder.embed', 'decoder.decoder_embed'),
          *same('decoder.mask_token', 'D', 'decoder.mask_token', '1 1 D'),
          *encoder_block('decoder.encoder.blocks.{i}', 'decoder.decoder_layers.{i}', 'attention'),
          *norm('decoder.norm', 'decoder.decoder_norm'), *dense('decoder.predict', 'decoder.decoder_pred')]


_TRANSFORMER = {'width': ('hidden_size', 768), 'depth': ('num_hidden_layers', 12), 'num_heads': (
    'num_attention_heads', 12), 'mlp_dim': ('intermediate_size', 3072), 'patch_size': ('patch_size', 16),
    'qkv_bias': ('qkv_bias', True), 'gelu': ('hidden_act', 'gelu'), 'epsilon': ('layer_norm_eps', 1e-12)}
_SWIN = {'patch_size': ('patch_size', 4), 'width': ('embed_dim', 96), 'depths': ('depths', (2, 2, 6, 2)),
         'num_heads': ('num_heads', (3, 6, 12, 24)), 'window_size': ('window_size', 7), 'mlp_ratio': ('mlp_ratio', 4.0)}
# Its norms of patches and of their merging have an epsilon of 1e-5 whatever the config says of the others.
_SWIN_MUST = {'qkv_bias': True, 'hidden_act': 'gelu', 'use_absolute_embeddings': False, 'layer_norm_eps': 1e-5}
_CNN = {'depths': ('depths', None), 'widths': ('hidden_sizes', None), 'stem_width': ('embedding_size', None)}

LAYOUTS = {
    'vit': Layout('vit', 'ViTForImageClassification', 'classifier', _TRANSFORMER, {}, _transformer(
        'vit', ('cls',), ('cls_token',), [('head', 'classifier')]), {'pool': 'cls', 'pos_embed': 'learned'}),
    # Masked autoencoders: the encoder, a backbone; what it was trained with is left out.
    'vit_mae': Layout('vit', 'ViTMAEForPreTraining', 'classifier', _TRANSFORMER, {}, _transformer(
        'vit', ('cls',), ('cls_token',), []), {'pool': 'cls', 'pos_embed': 'learned'}, prefix='vit',
        unused=('decoder.*',), free=('mask_ratio', 'norm_pix_loss', 'decoder_num_attention_heads',
                                     'decoder_hidden_size', 'decoder_num_hidden_layers', 'decoder_intermediate_size')),
    'deit': Layout('deit', 'DeiTForImageClassificationWithTeacher', 'cls_classifier', _TRANSFORMER, {}, _transformer(
        'deit', ('cls', 'distillation'), ('cls_token', 'distillation_token'),
        [('head', 'cls_classifier'), ('distillation_head', 'distillation_classifier')]), {'pos_embed': 'learned'}),
    'swin': Layout('swin', 'SwinForImageClassification', 'classifier', _SWIN, _SWIN_MUST, _swin, free=('hidden_size',)),
    'swinv2': Layout('swin', 'Swinv2ForImageClassification', 'classifier', _SWIN | {
        'trained_windows': ('pretrained_window_sizes', (0, 0, 0, 0))}, _SWIN_MUST, _swin, swin.V2 | {'mask': 200.0},
        free=('hidden_size',)),
    'resnet': Layout('resnet', 'ResNetForImageClassification', 'classifier.1', _CNN | {'block': (
        'layer_type', 'bottleneck')}, {'hidden_act': 'relu', 'downsample_in_first_stage': False,
                                       'downsample_in_bottleneck': False}, _cnn('resnet'), {'stem': 'quarter'}),
    'regnet': Layout('resnet', 'RegNetForImageClassification', 'classifier.1', _CNN | {
        'group_width': ('groups_width', 64), 'squeeze_excite': ('layer_type', 'y')}, {
            'hidden_act': 'relu', 'downsample_in_first_stage': True},
        _cnn('regnet'), {'stem': 'half', 'block': 'bottleneck', 'bottleneck': 1}),
    'convnext': Layout('convnext', 'ConvNextForImageClassification', 'classifier', {
        'patch_size': ('patch_size', 4), 'depths': ('depths', None), 'widths': ('hidden_sizes', None),
        'last_epsilon': ('layer_norm_eps', 1e-12), 'gelu': ('hidden_act', 'gelu'),
        'layer_scale': ('layer_scale_init_value', 1e-6)}, {}, _convnext, {'kernel_size': 7, 'grn': False}),
    'convnextv2': Layout('convnext', 'ConvNextV2ForImageClassification', 'classifier', {
        'patch_size': ('patch_size', 4), 'depths': ('depths', None), 'widths': ('hidden_sizes', None),
        'last_epsilon': ('layer_norm_eps', 1e-12), 'gelu': ('hidden_act', 'gelu')}, {}, _convnext,
        {'kernel_size': 7, 'grn': True, 'layer_scale': None}),
}
# Conversions of field values that differ: (ours from theirs, theirs from ours).
VALUES = {
    'gelu': (_GELU.get, {'exact': 'gelu', 'tanh': 'gelu_pytorch_tanh', 'quick': 'quick_gelu'}.get),
    'squeeze_excite': ({'y': True, 'x': False}.get, {True: 'y', False: 'x'}.get),
    'layer_scale': (lambda scale: scale if scale > 0 else None, lambda scale: 0.0 if scale is None else scale),
    'trained_windows': (lambda sizes: tuple(sizes) if all(size > 1 for size in sizes) else None if any(sizes) else (),
                        lambda windows: list(windows) or [0, 0, 0, 0]),
    'mlp_ratio': (lambda ratio: int(ratio) if ratio == int(ratio) else None, float),
}
DEFAULTS = {  # defaults of fields that differ between model_types with the same table
    ('resnet', 'depths'): (3, 4, 6, 3), ('resnet', 'hidden_sizes'): (256, 512, 1024, 2048),
    ('resnet', 'embedding_size'): 64, ('regnet', 'depths'): (2, 6, 12, 2),
    ('regnet', 'hidden_sizes'): (128, 192, 512, 1088), ('regnet', 'embedding_size'): 32,
    ('convnext', 'depths'): (3, 3, 9, 3), ('convnext', 'hidden_sizes'): (96, 192, 384, 768),
    ('convnextv2', 'depths'): (3, 3, 9, 3), ('convnextv2', 'hidden_sizes'): (96, 192, 384, 768)}
