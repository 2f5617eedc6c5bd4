"""Models of transformers and timm give the same results here, and survive the round trip bit for bit.

Always: from golden files (tests/golden). Live: where torch and these libraries are installed, they load what we write.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest
from golden_files import GOLDEN, NAMES, TOLERANCE, folder, golden

from vit_jax import interop
from vit_jax.errors import UserError
from vit_jax.interop import huggingface, huggingface_writer, timm, timm_writer, writers
from vit_jax.interop.weights import Weights


def logits(weights: Weights, images: np.ndarray) -> np.ndarray:
  model = weights.pure_model()
  apply = jax.jit(lambda params, stats, images: model.apply(params, stats, images.transpose(0, 2, 3, 1))[0])
  return np.asarray(apply(weights.params, weights.stats, images))


def assert_same(ours: Weights, theirs: Weights) -> None:
  """Checks that two models are equal bit for bit."""
  assert ours.config == theirs.config and ours.preprocessing == theirs.preprocessing
  assert ours.class_names == theirs.class_names
  bits = lambda weights: jax.tree.map(lambda a: (a.shape, a.tobytes()), (weights.params, weights.stats))
  assert bits(ours) == bits(theirs)


@pytest.mark.parametrize('name', NAMES)
def test_logits_and_round_trip(name, tmp_path):
  weights, there = interop.read(folder(name, tmp_path / 'theirs')), golden(name)
  difference = np.abs(logits(weights, there.images) - there.logits).max()
  print(f'{name}: max abs difference {difference:.2e}')
  assert there.logits.std(axis=0).max() > 0.05 and difference <= TOLERANCE

  weights = dataclasses.replace(weights, class_names=tuple(f'name {i}' for i in range(weights.num_classes)))
  writers.write(weights, tmp_path / 'bundle', 'bundle')
  assert_same(interop.read(tmp_path / 'bundle'), weights)
  if name not in ('timm_resnet', 'timm_regnet'):  # timm has them only in published widths
    writers.write(weights, tmp_path / 'ours', there.program)
    assert_same(interop.read(tmp_path / 'ours'), weights)


@pytest.mark.parametrize('name', NAMES)
def test_the_tensors_written_are_those_read(name):
  """Every tensor except tokens and positions, which are added up, has its name in files and the same bits."""
  there = golden(name)
  assert there.program in ('hf', 'timm')
  if there.program == 'timm':
    written, expected = timm_writer.write(_read(name)), there.tensors
  else:
    written, expected = huggingface_writer.write(_read(name)), {
        _file_name(key, there.config['model_type']): value for key, value in there.tensors.items()}
  expected = {key: value for key, value in expected.items() if value.dtype == np.float32}
  written = {key: value for key, value in written.items() if value.dtype == np.float32}
  assert written.keys() == expected.keys()
  for key, value in expected.items():
    if not any(word in key for word in ('pos_embed', 'position_embeddings', '_token')):
      np.testing.assert_array_equal(written[key], value, err_msg=key)


def _read(name):
  from vit_jax.interop.tensors import Tensors
  there = golden(name)
  floats = {key: value.shape for key, value in there.tensors.items() if value.dtype == np.float32}
  tensors = Tensors(name, floats, frozenset(), there.tensors.__getitem__)
  return timm.read(tensors, there.config) if there.program == 'timm' else huggingface.read(tensors, there.config, None)


def _file_name(name, kind):
  """Renames the tensors of transformers 5.23 from memory to files, as its save_pretrained does."""
  own = {'vit': 'attention.attention', 'deit': 'attention.attention', 'swin': 'attention.self'}.get(kind)
  if own is None:
    return name
  if kind != 'swin':
    name = name.replace(f'{kind}.layers.', f'{kind}.encoder.layer.')
  for ours, theirs in (('q_proj', 'query'), ('k_proj', 'key'), ('v_proj', 'value')):
    name = name.replace(f'attention.{ours}', f'{own}.{theirs}')
  name = name.replace('attention.relative_position_bias.', 'attention.self.').replace('o_proj', 'output.dense')
  return name.replace('mlp.fc1', 'intermediate.dense').replace('mlp.fc2', 'output.dense')


def test_epsilon_is_read(tmp_path):
  """The default is 1e-12 in transformers and 1e-6 here; a golden file distinguishes them."""
  theirs = dict(golden('vit_qkv_bias').config, layer_norm_eps=1e-5)
  place = folder('vit_qkv_bias', tmp_path)
  (place / 'config.json').write_text(json.dumps(theirs))
  weights = interop.read(place)
  assert weights.config.epsilon == 1e-5
  images, expected = golden('vit_qkv_bias')[2:4]
  assert np.abs(logits(weights, images) - expected).max() > TOLERANCE
  del theirs['layer_norm_eps']
  (place / 'config.json').write_text(json.dumps(theirs))
  assert interop.read(place).config.epsilon == 1e-12


def test_windows_that_differ_from_transformers_are_refused(tmp_path):
  """With 4 x 6 patches and windows of 4, theirs do not span the picture and ours do."""
  place = folder('swin-one_window', tmp_path)
  (place / 'config.json').write_text(json.dumps(golden('swin-one_window').config | {'image_size': [16, 24]}))
  with pytest.raises(UserError, match='have 4x6 patches in stage 1, where windows of 4 differ from'):
    interop.read(place)


@pytest.mark.parametrize('name', [n for n in NAMES if not n.startswith('timm_')])
def test_live_transformers_loads_ours(name, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers', minversion='5.23.0')
  weights, there = interop.read(folder(name, tmp_path / 'theirs')), golden(name)
  weights = dataclasses.replace(weights, class_names=tuple(f'name {i}' for i in range(weights.num_classes)))
  writers.write(weights, tmp_path / 'ours', 'hf')
  kind = json.loads((tmp_path / 'ours' / 'config.json').read_text())['architectures'][0]
  model, info = getattr(transformers, kind).from_pretrained(tmp_path / 'ours', output_loading_info=True)
  assert not info['missing_keys'] and not info['unexpected_keys'] and not info['mismatched_keys'], info
  assert model.config.id2label[3] == 'name 3'
  with torch.no_grad():
    theirs = model.eval()(torch.from_numpy(there.images)).logits.numpy()
  np.testing.assert_allclose(theirs, there.logits, rtol=0, atol=1e-5)
  model.save_pretrained(tmp_path / 'again', max_shard_size='20KB')  # in several files
  assert len(list((tmp_path / 'again').glob('model-*.safetensors'))) > 1
  again = interop.read(tmp_path / 'again')
  assert_same(dataclasses.replace(again, preprocessing=weights.preprocessing), weights)


@pytest.mark.parametrize('name', [n for n in NAMES if n.startswith('timm_')])
def test_live_timm_loads_ours(name, tmp_path):
  torch, timm_library = pytest.importorskip('torch'), pytest.importorskip('timm')
  if name in ('timm_resnet', 'timm_regnet'):
    architecture = {'timm_resnet': 'resnet18', 'timm_regnet': 'regnety_002'}[name]
    model, place = timm_library.create_model(architecture, num_classes=5).eval(), tmp_path / 'theirs'
    place.mkdir()
    from safetensors.torch import save_file
    save_file(model.state_dict(), place / 'model.safetensors')
    (place / 'config.json').write_text(json.dumps({'architecture': architecture}))
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    weights = interop.read(place)
    with torch.no_grad():
      expected = model(torch.from_numpy(images)).numpy()
    assert np.abs(logits(weights, images) - expected).max() <= TOLERANCE
  else:
    weights, (_, _, images, expected, _) = interop.read(folder(name, tmp_path / 'theirs')), golden(name)
  writers.write(weights, tmp_path / 'ours', 'timm')
  model = timm_library.create_model(f'local-dir:{tmp_path / "ours"}', pretrained=True).eval()
  with torch.no_grad():
    np.testing.assert_allclose(model(torch.from_numpy(images)).numpy(), expected, rtol=0, atol=1e-5)


def test_timm_golden_files_match_their_script():
  pytest.importorskip('timm')
  import runpy
  script = runpy.run_path(str(GOLDEN / 'make_timm_golden.py'))
  assert sorted(f'timm_{case}' for case in script['CASES']) == [n for n in NAMES if n.startswith('timm_')]
  for case in script['CASES']:
    fresh, there = script['case_arrays'](case), golden(f'timm_{case}')
    np.testing.assert_array_equal(fresh['images'], there.images)
    np.testing.assert_allclose(fresh['logits'], there.logits, rtol=0, atol=1e-5)
