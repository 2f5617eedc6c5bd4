"""Options drawn at random, of timm, transformers and OpenCLIP: each model is equal here or refused, and none wrong.

  python experiments/interop/draws.py [--draws=500] [--seed=0] [--only=KIND]
"""

import argparse
import collections
import dataclasses
import json
import pathlib
import random
import sys
import tempfile
import warnings

warnings.filterwarnings('ignore')
import open_clip  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import open_clip_models  # noqa: E402
import timm_models  # noqa: E402
import transformers_models  # noqa: E402
from compare import Outcome  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / 'results'
ACTIVATIONS = ['gelu', 'gelu_tanh', 'quick_gelu', 'relu', 'silu']
# {class of timm: (architectures, sizes, {option: values})}; see `drawn`.
OF_TIMM = {
    'ViT': (['vit_base_patch16_224', 'vit_base_patch16_gap_224', 'vit_base_patch16_clip_224', 'vit_base_patch14_dinov2',
             'vit_base_patch14_reg4_dinov2', 'deit3_small_patch16_224', 'deit_small_distilled_patch16_224',
             'vit_base_patch16_siglip_224', 'vit_giant_patch14_dinov2', 'flexivit_small'],
            dict(depth=2, embed_dim=48, num_heads=4, img_size=32, patch_size=8),
            dict(act_layer=ACTIVATIONS, global_pool=['token', 'avg', 'map', 'max', 'avgmax'],
                 class_token=[True, False], reg_tokens=[0, 1, 3], no_embed_class=[True, False], qk_norm=[True],
                 pre_norm=[True, False], fc_norm=[True, False, None], final_norm=[False, True],
                 init_values=[0.1, None, 0.0], qkv_bias=[False, True], norm_layer=['layernorm', 'rmsnorm'],
                 num_heads=[2, 3, 6], mlp_ratio=[2.0, 3.7], pos_embed=['none', 'learn'], pool_include_prefix=[True],
                 dynamic_img_size=[True], proj_bias=[False], scale_attn_norm=[True], scale_mlp_norm=[True],
                 img_size=[[16, 32], 24], in_chans=[1, 3])),
    'ResNet': (['resnet18', 'resnet50', 'resnext50_32x4d', 'wide_resnet50_2', 'resnet26d', 'seresnet50'],
               dict(layers=[1, 2, 1, 1]),
               dict(act_layer=['relu', 'silu', 'leaky_relu'], output_stride=[8, 16, 32],
                    global_pool=['avg', 'max', 'avgmax'], avg_down=[True],
                    stem_type=['', 'deep', 'deep_tiered'], stem_width=[16], block_reduce_first=[1, 2],
                    down_kernel_size=[1, 3], replace_stem_pool=[True], cardinality=[1, 2, 32], base_width=[4, 64, 32],
                    zero_init_last=[False], layers=[[1, 1, 2], [2, 1, 1, 1]], in_chans=[1])),
    'ConvNeXt': (['convnext_tiny', 'convnext_atto', 'convnextv2_atto'], dict(depths=[1, 2, 1, 1], dims=[8, 16, 16, 24]),
                 dict(act_layer=ACTIVATIONS, norm_eps=[1e-3, 1e-5], conv_mlp=[True, False], use_grn=[True, False],
                      ls_init_value=[None, 0.5], head_norm_first=[True], patch_size=[2, 4, 8], output_stride=[16, 32],
                      kernel_sizes=[3, 7, [7, 7, 3, 3]], conv_bias=[False], global_pool=['avg', 'max'],
                      stem_type=['patch', 'overlap', 'overlap_tiered'], head_hidden_size=[16], head_init_scale=[0.5])),
    'Swin': (['swin_tiny_patch4_window7_224', 'swin_s3_tiny_224'],
             dict(embed_dim=16, depths=[2, 2], num_heads=[2, 4], img_size=32, patch_size=2, window_size=4),
             dict(window_size=[3, [4, 4], [4, 2], 8, 5], mlp_ratio=[2.0, 3.5], qkv_bias=[False], head_dim=[8, 4],
                  always_partition=[True], norm_layer=['layernorm'], img_size=[[24, 40], 18],
                  global_pool=['avg', 'max'], strict_img_size=[False], num_heads=[[4, 4], [1, 2]])),
    'SwinV2': (['swinv2_tiny_window8_256', 'swinv2_base_window12to16_192to256'],
               dict(embed_dim=16, depths=[2, 2], num_heads=[2, 4], img_size=32, patch_size=2, window_size=4,
                    pretrained_window_sizes=[0, 0]),
               dict(window_size=[3, [4, 4], [4, 2], 8, 5], mlp_ratio=[2.0, 3.5], qkv_bias=[False],
                    pretrained_window_sizes=[[8, 4], [0, 2], [1, 1]], act_layer=['gelu', 'relu'],
                    always_partition=[True], img_size=[[24, 40], 18, 24], global_pool=['avg', 'max'],
                    strict_img_size=[False], num_heads=[[4, 4], [1, 2]], in_chans=[1])),
    'Eva': (['vit_small_patch16_dinov3', 'vit_small_plus_patch16_dinov3_qkvb', 'vit_small_patch16_rope_224',
             'vit_base_patch16_rope_reg1_gap_256', 'eva02_tiny_patch14_224'],
            dict(depth=2, embed_dim=48, num_heads=4, img_size=32, patch_size=8, ref_feat_shape=None),
            dict(global_pool=['token', 'avg', 'map', 'max'], class_token=[True, False], num_reg_tokens=[0, 1, 3],
                 no_embed_class=[True], use_abs_pos_emb=[True, False], use_rot_pos_emb=[True, False],
                 rope_type=['cat', 'dinov3', 'mixed'], rope_rotate_half=[True, False], rope_temperature=[50.0, 1e4],
                 rope_grid_indexing=['ij', 'xy'], rope_grid_offset=[1.0], qk_norm=[True], qkv_bias=[True, False],
                 qkv_fused=[True, False], attn_type=['eva', 'rope'], swiglu_mlp=[True, False], swiglu_align_to=[0, 8],
                 scale_mlp=[True], scale_attn_inner=[True], use_post_norm=[True], use_fc_norm=[True, False],
                 use_pre_transformer_norm=[True], use_post_transformer_norm=[True, False], init_values=[0.1, None],
                 attn_only_layer_scale=[True], ref_feat_shape=[[4, 4], [2, 4], 7], img_size=[[16, 32], 24],
                 mlp_ratio=[2.0, 3.7], num_heads=[2, 3, 6], dynamic_img_size=[True, False], num_kv_heads=[2])),
    'RegNet': (['regnetx_002', 'regnety_002', 'regnetz_005'], dict(depth=6, w0=16, wa=8.0, wm=1.8, group_size=8),
               dict(act_layer=['relu', 'silu'], se_ratio=[0.0, 0.25, 0.5], bottle_ratio=[1.0, 0.5, 2.0],
                    downsample=['conv1x1', 'avg', None], linear_out=[True], preact=[True], group_size=[4, 16],
                    output_stride=[8, 32], global_pool=['avg', 'max'], num_features=[0, 32], stem_width=[16])),
}
_GELU = ['gelu', 'gelu_new', 'gelu_fast', 'gelu_pytorch_tanh', 'quick_gelu', 'relu', 'silu']
_ENCODER = dict(hidden_act=_GELU, layer_norm_eps=[1e-3, 1e-6], num_attention_heads=[1, 4], num_channels=[3])
OF_TRANSFORMERS = {
    'ViTForImageClassification': dict(_ENCODER, qkv_bias=[False], encoder_stride=[8], pooler_act=['relu']),
    'DeiTForImageClassificationWithTeacher': dict(_ENCODER, qkv_bias=[False]),
    'SwinForImageClassification': dict(hidden_act=_GELU, layer_norm_eps=[1e-3], window_size=[2, 8, 5],
                                       mlp_ratio=[2.0, 2.5], qkv_bias=[False],
                                       use_absolute_embeddings=[True], num_heads=[[4, 4]]),
    'Swinv2ForImageClassification': dict(hidden_act=_GELU, layer_norm_eps=[1e-3], window_size=[2, 8, 5, 3],
                                         pretrained_window_sizes=[[4, 3], [0, 5]], mlp_ratio=[2.0, 2.5],
                                         qkv_bias=[False], use_absolute_embeddings=[True], num_heads=[[4, 4]],
                                         image_size=[[32, 48], 28, 36]),
    'ResNetForImageClassification': dict(hidden_act=['relu', 'silu'], layer_type=['basic', 'bottleneck'],
                                         downsample_in_first_stage=[True], downsample_in_bottleneck=[True],
                                         hidden_sizes=[[24, 16]], embedding_size=[16]),
    'RegNetForImageClassification': dict(hidden_act=['relu', 'silu'], layer_type=['x', 'y'], groups_width=[4, 16]),
    'ConvNextForImageClassification': dict(hidden_act=_GELU, layer_norm_eps=[1e-3], layer_scale_init_value=[0.0, 0.3],
                                           patch_size=[2, 4]),
    'ConvNextV2ForImageClassification': dict(hidden_act=_GELU, layer_norm_eps=[1e-3]),
    'Dinov2Model': dict(_ENCODER, qkv_bias=[False], use_swiglu_ffn=[True], mlp_ratio=[2], layerscale_value=[0.1],
                        apply_layernorm=[False]),
    'Dinov2WithRegistersModel': dict(_ENCODER, num_register_tokens=[1, 2], use_swiglu_ffn=[True], qkv_bias=[False]),
    'DINOv3ViTModel': dict(_ENCODER, num_register_tokens=[0, 3], rope_theta=[50.0], key_bias=[True], mlp_bias=[False],
                           use_gated_mlp=[True], layerscale_value=[0.1], query_bias=[False]),
    'CLIPVisionModel': dict(_ENCODER), 'SiglipVisionModel': dict(_ENCODER, vision_use_head=[False]),
}


def drawn(rng, options):
  """Some of the options, each with one of its values: a quarter, and of many about four."""
  share = min(0.25, 4 / len(options))
  return {key: rng.choice(values) for key, values in options.items() if rng.random() < share}


def of_timm(rng, number, only=None):
  kind = only or rng.choice(sorted(OF_TIMM))
  architectures, sizes, options = OF_TIMM[kind]
  name, own = rng.choice(architectures), {**sizes, **drawn(rng, options)}
  label = f'{name} {json.dumps({key: value for key, value in own.items() if key not in sizes or value != sizes[key]})}'
  try:
    model = timm.create_model(name, num_classes=7, **own)
  except Exception as error:  # whatever timm raises for options that do not go together
    return Outcome(label, 'not built', f'{type(error).__name__}: {error}'[:120])
  with tempfile.TemporaryDirectory() as place:
    found = timm_models.outcome(name, model, timm_models.input_size(model), pathlib.Path(place), number)
  return dataclasses.replace(found, name=label)


def of_transformers(rng, number):
  name = rng.choice(sorted(OF_TRANSFORMERS))
  own = drawn(rng, OF_TRANSFORMERS[name])
  with tempfile.TemporaryDirectory() as place:
    found = transformers_models.outcome(name, pathlib.Path(place), own, number)
  return dataclasses.replace(found, name=f'{name} {json.dumps(own)}')


def of_open_clip(rng, number):
  own, quick = drawn(rng, open_clip_models.OPTIONS), rng.random() < 0.25
  label = f'OpenCLIP {json.dumps({**own, "quick_gelu": quick})}'
  with tempfile.TemporaryDirectory() as place:
    return open_clip_models.outcome(label, own, quick, pathlib.Path(place), number)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--draws', type=int, default=500)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--only', default='', help='a key of OF_TIMM; without it, results are written')
  flags = parser.parse_args()
  torch.set_num_threads(1)
  rng, outcomes = random.Random(flags.seed), []
  while sum(found.verdict != 'not built' for found in outcomes) < flags.draws:
    calls = [of_timm] if flags.only else [of_timm] * 3 + [of_transformers] * 2 + [of_open_clip]
    outcomes.append(rng.choice(calls)(rng, len(outcomes), **({'only': flags.only} if flags.only else {})))
    found = outcomes[-1]
    error = '' if found.error is None else f'{found.error:.1e} of {found.scale:.1f}'
    print(f'{found.verdict:10} {found.name} {error} {found.words}', flush=True)
  counts = collections.Counter(found.verdict for found in outcomes)
  versions = {package.__name__: package.__version__ for package in (timm, transformers, torch, open_clip)}
  summary = {**versions, 'seed': flags.seed,
             **{word: counts[word] for word in ('equal', 'refused', 'wrong', 'not built')}}
  print(json.dumps(summary))
  if flags.only:
    return bool(counts['wrong'])
  RESULTS.mkdir(exist_ok=True)
  lines = [json.dumps(summary), *(json.dumps(dataclasses.asdict(found)) for found in outcomes)]
  (RESULTS / 'draws.jsonl').write_text('\n'.join(lines) + '\n')
  return bool(counts['wrong'])


if __name__ == '__main__':
  sys.exit(main())
