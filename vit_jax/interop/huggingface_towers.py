"""Vision towers of transformers that are read and not written: DINOv2, DINOv3, CLIP, SigLIP.

Most are backbones without a classifier. Where there is one, it says in `pool` and `last_norm` what it reads.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vit_jax.interop.entries import Entries
from vit_jax.interop.rules import Axes, Rule, Tokens, attention, dense, mlp, norm, patches, same
from vit_jax.interop.tensors import Tensors

GELU = (('gelu', 'exact'), ('gelu_pytorch_tanh', 'tanh'), ('gelu_new', 'tanh'), ('gelu_fast', 'tanh'),
        ('quick_gelu', 'quick'))  # gelu_new and gelu_fast are other implementations of the tanh approximation


class Read(NamedTuple):
  """What a tower's config and tensors say: the fields of our ViT, the rules, and names that the model does not use."""
  fields: dict[str, Any]
  rules: Sequence[Rule]
  unused: tuple[str, ...]


class Tower(NamedTuple):
  """One model_type of transformers: `bare` is the prefix of a backbone inside of a model with a head."""
  bare: str
  read: Callable[[Tensors, Entries], Read]
  vision: str | None = None  # the key of the vision tower's config, where the model has two towers


def _vit(e, width=768, depth=12, heads=12, epsilon=1e-6, act='gelu', gated=False):
  kind = e.choose('hidden_act', (('silu', 'swiglu'), ('swish', 'swiglu')) if gated else GELU, act)
  return {'width': e.get('hidden_size', width), 'depth': e.get('num_hidden_layers', depth),
          'num_heads': e.get('num_attention_heads', heads), 'epsilon': e.get('layer_norm_eps', epsilon),
          'patch_size': e.get('patch_size', 16), **({'mlp': kind} if gated else {'gelu': kind})}


def _dinov2(tensors, e):
  shapes, fields = tensors.shapes, _vit(e)
  fields['patch_size'] = e.get('patch_size', 16 if e.get('model_type') == 'dinov2_with_registers' else 14)
  registers = e.get('num_register_tokens', 4) if e.get('model_type') == 'dinov2_with_registers' else 0
  gated = e.switched('use_swiglu_ffn')
  if gated:
    e.free('hidden_act')
    fields |= {'mlp': 'swiglu', 'gelu': 'exact'}
  maps = ('weights_in', 'weights_out') if gated else ('fc1', 'fc2')
  up = shapes[f'encoder.layer.0.mlp.{maps[0]}.weight'][0]
  fields |= {'mlp_dim': up // 2 if gated else up, 'qkv_bias': e.switched('qkv_bias', True), 'pool': 'cls',
             'layer_scale': float(e.get('layerscale_value', 1.0)), 'global_tokens': registers}
  e.only('apply_layernorm', True)
  e.free('mlp_ratio', 'reshape_hidden_states', 'use_mask_token')
  if 'classifier.weight' in shapes:
    raise e.refused('architectures', 'the classifier reads the class token beside the mean of the patches, which no '
                    'model here does; read the backbone alone, with --without=classifier.*')
  block, theirs = 'encoder.blocks.{i}', 'encoder.layer.{i}'
  q_k_v = [f'{theirs}.attention.attention.{name}' for name in ('query', 'key', 'value')]
  ours = ('cls',) + ('global_tokens',) * bool(registers)
  prefix = (('embeddings.cls_token', 1),) + (('embeddings.register_tokens', registers),) * bool(registers)
  # The class token alone has a position.
  rules = [*patches('patch_embed.proj', 'embeddings.patch_embeddings.projection'),
           Tokens(ours, prefix, 'embeddings.position_embeddings', placed=1),
           *norm(f'{block}.norm1', f'{theirs}.norm1'), *norm(f'{block}.norm2', f'{theirs}.norm2'),
           *attention(f'{block}.attention', q_k_v, f'{theirs}.attention.output.dense'),
           *(_gated_mlp if gated else mlp)(f'{block}.mlp', *(f'{theirs}.mlp.{name}' for name in maps)),
           *(rule for i in (1, 2) for rule in same(f'{block}.scale{i}', 'D', f'{theirs}.layer_scale{i}.lambda1')),
           *norm('norm', 'layernorm')]
  return Read(fields, rules, ('embeddings.mask_token',))


def _gated_mlp(ours, up, down):
  return [*same(f'{ours}.up.kernel', 'I O 2', f'{up}.weight', '(2 O) I'),
          *same(f'{ours}.up.bias', 'O 2', f'{up}.bias', '(2 O)'), *dense(f'{ours}.down', down)]


def _dinov3(tensors, e):
  gated = e.switched('use_gated_mlp')
  fields = _vit(e, width=384, heads=6, epsilon=1e-5, gated=gated)
  registers = e.get('num_register_tokens', 0)
  fields |= {'mlp_dim': e.get('intermediate_size', 1536), 'pool': 'cls', 'pos_embed': 'rope2d_centred',
             'rope_theta': float(e.get('rope_theta', 100.0)), 'layer_scale': float(e.get('layerscale_value', 1.0)),
             'global_tokens': registers}
  for key, right in (('query_bias', True), ('key_bias', False), ('value_bias', True), ('proj_bias', True),
                     ('mlp_bias', True), ('apply_layernorm', True)):
    e.only(key, right)
  e.free('attention_dropout', 'pos_embed_shift', 'pos_embed_jitter', 'pos_embed_rescale', 'reshape_hidden_states')
  block, theirs = 'encoder.blocks.{i}', 'layer.{i}'
  q_k_v = [f'{theirs}.attention.{name}_proj' for name in 'qkv']
  ours = ('cls',) + ('global_tokens',) * bool(registers)
  prefix = (('embeddings.cls_token', 1),) + (('embeddings.register_tokens', registers),) * bool(registers)
  maps = lambda name: tuple(f'{theirs}.mlp.{part}_proj.{name}' for part in ('gate', 'up'))
  gates = [Axes(f'{block}.mlp.up.kernel', 'I O 2', maps('weight'), 'O I'),
           Axes(f'{block}.mlp.up.bias', 'O 2', maps('bias'), 'O')]
  rules = [*patches('patch_embed.proj', 'embeddings.patch_embeddings'), Tokens(ours, prefix, None),
           *norm(f'{block}.norm1', f'{theirs}.norm1'), *norm(f'{block}.norm2', f'{theirs}.norm2'),
           *attention(f'{block}.attention', q_k_v, f'{theirs}.attention.o_proj'),
           *(gates if gated else []), *mlp(f'{block}.mlp', f'{theirs}.mlp.up_proj', f'{theirs}.mlp.down_proj'),
           *(rule for i in (1, 2) for rule in same(f'{block}.scale{i}', 'D', f'{theirs}.layer_scale{i}.lambda1')),
           *norm('norm', 'norm')]
  # Without registers there is an empty tensor.
  return Read(fields, rules, ('embeddings.mask_token', *(() if registers else ('embeddings.register_tokens',))))


def _blocks():
  block, theirs = 'encoder.blocks.{i}', 'encoder.layers.{i}'
  q_k_v = [f'{theirs}.self_attn.{name}_proj' for name in 'qkv']
  return [*norm(f'{block}.norm1', f'{theirs}.layer_norm1'), *norm(f'{block}.norm2', f'{theirs}.layer_norm2'),
          *attention(f'{block}.attention', q_k_v, f'{theirs}.self_attn.out_proj'),
          *mlp(f'{block}.mlp', f'{theirs}.mlp.fc1', f'{theirs}.mlp.fc2')]


def _clip(tensors, e):
  fields = _vit(e, epsilon=1e-5, act='quick_gelu')
  fields |= {'mlp_dim': e.get('intermediate_size', 3072), 'pre_norm': True, 'patch_size': e.get('patch_size', 32)}
  e.free('projection_dim', 'attention_dropout', 'initializer_factor')
  if classifies := 'classifier.weight' in tensors.shapes:  # it reads the mean of the patches, without the last norm
    fields |= {'pool': 'gap', 'last_norm': 'none', 'global_tokens': 1}
  else:
    fields |= {'pool': 'cls', 'last_norm': 'pooled'}
  rules = [*clip_rules('global_tokens' if classifies else 'cls'), *dense('head', 'classifier')]
  return Read(fields, rules, ('visual_projection.weight', *(('post_layernorm.*',) if classifies else ())))


def clip_rules(token: str = 'cls') -> list[Rule]:
  """The rules of CLIP's vision tower, whose class token is our `token`."""
  tokens = Tokens((token,), (('embeddings.class_embedding', 1),), 'embeddings.position_embedding.weight', axes=())
  return [*same('patch_embed.proj.kernel', '(P Q C) O', 'embeddings.patch_embedding.weight', 'O C P Q'), tokens,
          *norm('pre_norm', 'pre_layrnorm'), *_blocks(), *norm('norm', 'post_layernorm')]


def _siglip(tensors, e):
  fields = _vit(e, act='gelu_pytorch_tanh')
  fields |= {'mlp_dim': e.get('intermediate_size', 3072)}
  e.only('vision_use_head', True)
  e.free('attention_dropout')
  classifies = 'classifier.weight' in tensors.shapes  # it reads the mean of the patches
  fields['pool'] = 'gap' if classifies else 'map'
  return Read(fields, [*siglip_rules(), *dense('head', 'classifier')], ('head.*',) if classifies else ())


def siglip_rules() -> list[Rule]:
  """The rules of SigLIP's vision tower, after `derived.split`."""
  pool, theirs = 'attention_pool', 'head'
  return [*patches('patch_embed.proj', 'embeddings.patch_embedding'),
          *same('pos_embed', 'T D', 'embeddings.position_embedding.weight'), *_blocks(),
          *norm('norm', 'post_layernorm'),
          *same(f'{pool}.probe', '1 D', f'{theirs}.probe', '1 1 D'),
          *same(f'{pool}.query.kernel', 'D H K', f'{theirs}.attention.in_proj_weight.q', '(H K) D'),
          *same(f'{pool}.query.bias', 'H K', f'{theirs}.attention.in_proj_bias.q', '(H K)'),
          Axes(f'{pool}.key_value.kernel', 'D H 2 K', (f'{theirs}.attention.in_proj_weight.kv',), '(2 H K) D'),
          Axes(f'{pool}.key_value.bias', 'H 2 K', (f'{theirs}.attention.in_proj_bias.kv',), '(2 H K)'),
          *dense(f'{pool}.out', f'{theirs}.attention.out_proj', 'H K O', 'O (H K)'),
          *norm(f'{pool}.norm', f'{theirs}.layernorm'), *mlp(f'{pool}.mlp', f'{theirs}.mlp.fc1', f'{theirs}.mlp.fc2')]


def joined_queries(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The inverse of `derived.split`, of {name: array}."""
  out = {name: array for name, array in arrays.items() if not name.endswith(('.q', '.kv'))}
  return out | {name.removesuffix('.q'): np.concatenate([array, arrays[f'{name.removesuffix(".q")}.kv']])
                for name, array in arrays.items() if name.endswith('.q')}


TOWERS = {
    'dinov2': Tower('dinov2.', _dinov2), 'dinov2_with_registers': Tower('dinov2_with_registers.', _dinov2),
    'dinov3_vit': Tower('dinov3_vit.', _dinov3),
    'clip_vision_model': Tower('vision_model.', _clip), 'clip': Tower('vision_model.', _clip, 'vision_config'),
    'siglip_vision_model': Tower('vision_model.', _siglip), 'siglip': Tower('vision_model.', _siglip, 'vision_config'),
}
