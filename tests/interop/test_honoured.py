"""Settings in other programs' files are honoured or refused by name; none is dropped.

The expected logits are those of the golden files, which their programs made with the settings in them. A setting that
changes what the same tensors compute must therefore be refused, or change the logits.
"""

import json
import re

import numpy as np
import pytest
from golden_files import TOLERANCE, folder, golden
from PIL import Image

from vit_jax import interop
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import architectures, processors, tensors, timm_layouts
from vit_jax.interop.entries import Entries

PROCESSOR = {'image_processor_type': 'ViTImageProcessor', 'size': {'height': 16, 'width': 24}}


def changed(place, name, **args):
  """The model of a golden file of timm with other model_args."""
  folder(name, place)
  config = dict(golden(name).config)
  config['model_args'] = config['model_args'] | args
  (place / 'config.json').write_text(json.dumps(config))
  return place


@pytest.mark.parametrize('name, args, words', [
    ('timm_vit', {'act_layer': 'relu'}, "act_layer='relu': not supported; expected None or 'gelu'"),
    ('timm_vit', {'scale_mlp_norm': True}, 'scale_mlp_norm=True'),
    ('timm_vit', {'no_such_option': 1}, 'no_such_option=1: an entry that this reader does not know'),
    ('timm_vit', {'global_pool': 'avgmax'}, "global_pool='avgmax'"),
    ('timm_vit', {'norm_layer': 'rmsnorm'}, "norm_layer='rmsnorm'"),
    ('timm_resnet', {'act_layer': 'silu'}, "act_layer='silu'"),
    ('timm_resnet', {'output_stride': 8}, 'output_stride=8'),
    ('timm_resnet', {'global_pool': 'max'}, "global_pool='max'"),
    ('timm_resnet', {'replace_stem_pool': True}, 'replace_stem_pool=True'),
    ('timm_regnet', {'act_layer': 'silu'}, "act_layer='silu'"),
    ('timm_convnext', {'act_layer': 'relu'}, "act_layer='relu'"),
    ('timm_convnext', {'head_norm_first': True}, 'head_norm_first=True'),
    ('timm_swin', {'always_partition': True}, 'always_partition=True'),
    ('timm_swin', {'window_size': [3, 2]}, 'one size for all stages'),
])
def test_options_of_timm_that_are_refused(tmp_path, name, args, words):
  with pytest.raises(UserError, match=words):
    interop.read(changed(tmp_path, name, **args))


@pytest.mark.parametrize('name, args, field, value', [
    ('timm_vit', {'act_layer': 'quick_gelu'}, 'gelu', 'quick'),
    ('timm_vit', {'act_layer': 'gelu_tanh'}, 'gelu', 'tanh'),
    ('timm_vit', {'num_heads': 4}, 'num_heads', 4),
    ('timm_convnext', {'norm_eps': 1e-2}, 'epsilon', 1e-2),
    ('timm_convnext', {'norm_eps': 1e-2}, 'last_epsilon', 1e-2),
    ('timm_convnext', {'act_layer': 'gelu_tanh'}, 'gelu', 'tanh'),
])
def test_options_of_timm_that_are_honoured(tmp_path, name, args, field, value):
  before = interop.read(folder(name, tmp_path / 'as_it_was')).config
  assert getattr(before, field) != value
  assert getattr(interop.read(changed(tmp_path / 'changed', name, **args)).config, field) == value


@pytest.mark.parametrize('name, words', [
    ('resnetblur18', "aa_layer='BlurPool2d': not supported"),
    ('resnetrs50', 'block_args='),
    ('vit_base_patch16_224_of_mine', 'not an architecture of timm that this project knows; did you mean'),
    ('vit_base_patch16_rope_mixed_224', 'or their shapes .*; is it another architecture'),
    ('resnetv2_50', 'is a ResNetV2 of timm, which is not supported'),
])
def test_architectures_of_timm_that_are_refused(tmp_path, name, words):
  place = changed(tmp_path, 'timm_resnet')
  config = json.loads((place / 'config.json').read_text())
  (place / 'config.json').write_text(json.dumps(config | {'architecture': name}))
  with pytest.raises(UserError, match=words):
    interop.read(place)


def test_an_architecture_says_the_number_of_heads():
  """No tensor shows it: 16 heads of 48 in this one, and 12 of 64 in others of the same width."""
  kind, arguments = architectures.meaning('vit_base_patch16_gap_224', 'x')
  assert (kind, arguments['num_heads']) == ('VisionTransformer', 16)
  assert architectures.meaning('vit_base_patch16_224.augreg_in21k', 'x')[1]['num_heads'] == 12


def test_the_table_of_architectures_is_large_and_most_of_its_classes_are_read():
  kinds = [kind for kind, _ in architectures.table().values()]
  assert len(kinds) > 400 and sum(kind in timm_layouts.LAYOUTS for kind in kinds) > 300


@pytest.mark.parametrize('changes, words', [
    ({'global_pool': 'avg'}, "global_pool='avg': not supported; expected 'token'"),
    ({'something': 1}, 'something=1: an entry that this reader does not know'),
    ({'pretrained_cfg': {'crop_mode': 'border'}}, "crop_mode='border'"),
    ({'pretrained_cfg': {'label_offset': 1}}, 'label_offset=1'),
    ({'model_args': [1]}, 'model_args in its config.json: expected an object'),
])
def test_the_rest_of_timms_config(tmp_path, changes, words):
  config = golden('timm_vit').config | changes
  folder('timm_vit', tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with pytest.raises(UserError, match=words):
    interop.read(tmp_path)


def test_a_config_without_preprocessing_says_what_is_assumed(tmp_path, capfd):
  config = {key: golden('timm_vit').config[key] for key in ('architecture', 'model_args')}
  folder('timm_vit', tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps(config))
  assert interop.read(tmp_path).preprocessing.mean == (0.485, 0.456, 0.406)
  assert "does not say mean, std, interpolation, crop_pct of pretrained_cfg; those of timm's" in capfd.readouterr().err


@pytest.mark.parametrize('changes, words', [
    ({'problem_type': 'regression'}, "problem_type='regression': not supported"),
    ({'pruned_heads': {'0': [1]}}, 'pruned_heads'),
    ({'quantization_config': {}}, 'quantization_config={}: an entry that this reader does not know'),
    ({'hidden_act': 'relu'}, "hidden_act='relu'"),
])
def test_options_of_transformers_that_are_refused(tmp_path, changes, words):
  folder('vit_qkv_bias', tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps(golden('vit_qkv_bias').config | changes))
  with pytest.raises(UserError, match=words):
    interop.read(tmp_path)


def processed(**changes):
  return processors.read(PROCESSOR | changes, 'vit', (16, 24), 3, 'x')


@pytest.mark.parametrize('changes, mean, std', [
    ({}, (0.5,), (0.5,)),
    ({'do_normalize': False}, (0.0,), (1.0,)),
    ({'do_rescale': False}, (0.5 / 255,), (0.5 / 255,)),
    ({'do_rescale': False, 'do_normalize': False}, (0.0,), (1 / 255,)),
    ({'rescale_factor': 1 / 127.5}, (0.25,), (0.25,)),
    ({'image_mean': [0.1, 0.2, 0.3], 'image_std': [0.4, 0.5, 0.6]}, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
])
def test_the_scaling_of_a_processor(changes, mean, std):
  """As (p * factor - mean) / std of transformers, for a pixel p."""
  found = processed(**changes)
  np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
  np.testing.assert_allclose(found.std, std, rtol=1e-6)
  factor = changes.get('rescale_factor', 1 / 255) if changes.get('do_rescale', True) else 1
  shift, by = np.array(changes.get('image_mean', [0.5])), np.array(changes.get('image_std', [0.5]))
  if not changes.get('do_normalize', True):
    shift, by = 0, 1
  pixels = np.full((1, 1, 1, 3), 77, np.uint8)
  np.testing.assert_allclose(np.asarray(found.normalize(pixels))[0, 0, 0], (77 * factor - shift) / by * np.ones(3),
                             rtol=1e-4)


@pytest.mark.parametrize('changes, words', [
    ({'do_flip_channel_order': True}, 'do_flip_channel_order=True: not supported'),
    ({'do_resize': False}, 'do_resize=False'), ({'do_pad': True}, 'do_pad=True'), ({'resample': 5}, 'resample=5'),
    ({'size': {'longest_edge': 9}}, 'expected a height and a width'), ({'size': [16, 24]}, 'size=.16, 24.'),
    ({'size': {'shortest_edge': 9}}, 'leaves pictures of all shapes'),
    ({'image_processor_type': 'LayoutLMv3ImageProcessor'}, 'image_processor_type=.*expected one of ViTImageProcessor'),
    ({'rescale_factor': 0}, 'rescale_factor=0'), ({'some_key': 1}, 'some_key=1'),
    ({'do_center_crop': True, 'crop_size': 99}, 'around which transformers pads'),
])
def test_processors_that_are_refused(changes, words):
  with pytest.raises(UserError, match=words):
    processed(**changes)


@pytest.mark.parametrize('processor, expected', [
    ({'image_processor_type': 'CLIPImageProcessor', 'size': 256, 'crop_size': 224},
     dict(size=(224, 224), crop=0.875, squeeze=False, interpolation='bicubic', pixels='floor')),
    ({'image_processor_type': 'DeiTImageProcessorFast'},
     dict(size=(224, 224), crop=0.875, squeeze=True, interpolation='bicubic', pixels='floor')),
    ({'image_processor_type': 'ConvNextImageProcessor', 'size': {'shortest_edge': 224}},
     dict(size=(224, 224), crop=0.875, squeeze=False, interpolation='bicubic', pixels='floor')),
    ({'image_processor_type': 'ConvNextImageProcessor'},
     dict(size=(384, 384), crop=1.0, squeeze=True, interpolation='bicubic', pixels='exact')),
    ({'feature_extractor_type': 'ViTFeatureExtractor', 'size': 224}, dict(size=(224, 224), squeeze=True)),
    ({'size': 224}, dict(size=(224, 224), squeeze=True)),
])
def test_the_geometry_of_a_processor_and_the_defaults_of_its_class(processor, expected):
  found = processors.read(processor, 'vit', (224, 224), 3, 'x')
  assert {key: getattr(found, key) for key in expected} == expected


def test_a_crop_at_whole_pixels():
  """50 x 30 has its short side resized to 20, its long side to int(33.3); the crop of 16 begins at 2 and at 8."""
  pixels = np.random.default_rng(0).integers(0, 256, (50, 30, 3), np.uint8)
  frame = Preprocessing((16, 16), crop=16 / 20, interpolation='bicubic', pixels='floor').frame
  expected = np.asarray(Image.fromarray(pixels).resize((20, 33), Image.BICUBIC))[8:24, 2:18]
  np.testing.assert_array_equal(frame(pixels, None), expected)


def test_a_missing_processor_is_said(tmp_path, capfd):
  interop.read(folder('vit_qkv_bias', tmp_path))
  assert 'no preprocessor_config.json says how pictures are prepared' in capfd.readouterr().err


def test_entries():
  entries = Entries({'a': 1, 'flag': True, 'none': None}, 'x')
  with pytest.raises(UserError, match='x: flag=True: not supported; expected 1 or 2'):
    entries.only('flag', 1, 2)  # True is not 1
  assert entries.get('none', 5) == 5 and entries.choose('a', [(1, 'one')], 2) == 'one'
  entries.close()
  with pytest.raises(UserError, match='x: b=2: an entry that this reader does not know; did you mean .bb.'):
    other = Entries({'b': 2}, 'x')
    other.free('bb')
    other.close()


@pytest.mark.parametrize('prefix', ['module.', '_orig_mod.', 'model._orig_mod.', 'module.model.'])
def test_prefixes_of_wrappers(tmp_path, prefix):
  there = golden('timm_vit')
  folder('timm_vit', tmp_path)
  tensors.write(tmp_path / 'model.safetensors', {f'{prefix}{name}': value for name, value in there.tensors.items()})
  assert interop.read(tmp_path).num_classes == 7


def test_a_timm_wrapper_of_transformers(tmp_path):
  there = golden('timm_vit')
  (tmp_path / 'config.json').write_text(json.dumps(there.config | {'model_type': 'timm_wrapper', 'do_pooling': True}))
  tensors.write(tmp_path / 'model.safetensors', {f'timm_model.{name}': v for name, v in there.tensors.items()})
  assert interop.read(tmp_path).num_classes == 7


@pytest.mark.parametrize('height, words', [
  (25, 'pictures of 25x24 are no whole patches of 2'),
  (20, 'pictures of 20x24 have 10x12 patches in stage 0, which are no whole windows of 3; timm fills up windows after'),
])
def test_swin_of_timm_with_a_border_that_it_treats_in_another_way(tmp_path, height, words):
  folder('timm_swin', tmp_path)
  config = json.loads((tmp_path / 'config.json').read_text())
  config['pretrained_cfg']['input_size'] = [3, height, 24]
  config['model_args']['img_size'] = [height, 24]
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with pytest.raises(UserError, match=words):
    interop.read(tmp_path)


@pytest.mark.parametrize('case, changes, words', [
  ('swin_v2_classifier', {'image_size': 18}, 'have 5x5 patches in stage 1, of which transformers counts 4x4'),
  ('swin_v2_classifier', {'image_size': [12, 24]}, 'have 3x6 patches in stage 1, where windows of 4 differ'),
  ('swin_v2_classifier', {'layer_norm_eps': 1e-3}, 'layer_norm_eps=0.001: not supported; expected 1e-05'),
  ('swin_v2_classifier', {'pretrained_window_sizes': [0, 4]}, r'pretrained_window_sizes=\[0, 4\]: not supported'),
])
def test_swin_v2_of_transformers(tmp_path, case, changes, words):
  from test_towers import saved
  saved(case, tmp_path)
  config = json.loads((tmp_path / 'config.json').read_text())
  (tmp_path / 'config.json').write_text(json.dumps(config | changes))
  with pytest.raises(UserError, match=words):
    interop.read(tmp_path)


def test_swin_of_transformers_has_norms_whose_epsilon_no_config_says(tmp_path):
  folder('swin-padded', tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps(golden('swin-padded').config | {'layer_norm_eps': 1e-3}))
  with pytest.raises(UserError, match='layer_norm_eps=0.001: not supported; expected 1e-05'):
    interop.read(tmp_path)


def test_rotary_places_on_another_grid_are_refused(tmp_path):
  from test_towers import saved
  saved('timm_rope', tmp_path)
  config = json.loads((tmp_path / 'config.json').read_text())
  config['model_args']['ref_feat_shape'] = [4, 4]
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with pytest.raises(UserError, match='have 2x3 patches, whose places timm measures on the grid of ref_feat_shape'):
    interop.read(tmp_path)


@pytest.mark.parametrize('entry, message', [
    ({'problem_type': 'regression'}, "problem_type='regression': not supported"),
    ({'problem_type': 'multi_label_classification'}, "problem_type='multi_label_classification': not supported"),
    ({'act_scale': 2}, 'act_scale=2: an entry that this reader does not know')])
def test_entries_of_a_timm_wrapper_are_honoured_or_refused(tmp_path, entry, message):
  folder('timm_vit', tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps(golden('timm_vit').config | {'model_type': 'timm_wrapper'} | entry))
  with pytest.raises(UserError, match=re.escape(message)):
    interop.read(tmp_path)


@pytest.mark.parametrize('kind', ['clip', 'siglip'])
@pytest.mark.parametrize('entry, message', [
    ({'problem_type': 'regression'}, "problem_type='regression': not supported"),
    ({'act_scale': 2}, 'act_scale=2: an entry that this reader does not know')])
def test_entries_beside_the_towers_are_honoured_or_refused(tmp_path, kind, entry, message):
  folder('timm_vit', tmp_path)  # refused before the tensors are looked at
  config = {'model_type': kind, 'vision_config': {}, 'text_config': {}, 'logit_scale_init_value': 2.6592}
  (tmp_path / 'config.json').write_text(json.dumps(config | entry))
  with pytest.raises(UserError, match=re.escape(message)):
    interop.read(tmp_path)


@pytest.mark.parametrize('name', ['base_model.model.vit.layer.0.lora_A.weight', 'lora_B.default.weight'])
def test_adapters_are_named_as_such(tmp_path, name):
  tensors.write(tmp_path / 'adapter_model.safetensors', {name: np.zeros((2, 2), np.float32)})
  with pytest.raises(UserError, match='the weights of an adapter .*merge_and_unload'):
    interop.read(tmp_path)


def test_the_tolerance_tells_the_options_apart(tmp_path):
  """What is refused above would be wrong: quick_gelu in the place of gelu is far outside of the tolerance."""
  from test_parity import logits
  there = golden('timm_vit')
  found = logits(interop.read(changed(tmp_path, 'timm_vit', act_layer='quick_gelu')), there.images)
  assert np.abs(found - there.logits).max() > 10 * TOLERANCE
