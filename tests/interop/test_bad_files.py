"""Bad files: the message says what the file is, and nothing in it is unpickled or unpacked."""

import copy
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from golden_files import folder, golden
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vit_jax import interop
from vit_jax.errors import UserError
from vit_jax.interop import tensors

NAME = 'vit_qkv_bias'
NORM = 'vit.layernorm.weight'


@pytest.fixture(name='whole', scope='module')
def _whole(tmp_path_factory):
  """The bytes of a good model.safetensors."""
  return (folder(NAME, tmp_path_factory.mktemp('whole')) / 'model.safetensors').read_bytes()


def _npz(path, **arrays):
  np.savez(path, **arrays)
  return path


class Bomb:
  """Ends the tests if it is unpickled."""

  def __reduce__(self):
    return (pytest.exit, ('a pickle was run',))


@pytest.mark.parametrize('content, message', [
    (b'', 'an empty file'),
    (pickle.dumps(Bomb()), 'a Python pickle'),
    (b'version https://git-lfs.github.com/spec/v1\noid sha256:00', 'a Git LFS pointer'),
    (b'<!DOCTYPE html><html>', 'a web page'),
    (b'\x89HDF\r\n\x1a\n' + bytes(99), 'an HDF5 file'),
    (b'something else that is long enough', 'an unknown kind of file'),
])
@pytest.mark.parametrize('name', ['model.safetensors', 'weights.npz'])
def test_other_kinds_of_files_are_named(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=message):
    interop.read(tmp_path / name)


def test_missing_files(tmp_path):
  with pytest.raises(UserError, match='no such file'):
    interop.read(tmp_path / 'model.safetensors')
  (tmp_path / 'pytorch_model.bin').write_bytes(pickle.dumps(Bomb()))
  with pytest.raises(UserError, match=r'only pickles \(pytorch_model.bin\)'):
    interop.read(tmp_path)


@pytest.mark.parametrize('kept', [0.001, 0.01, 0.5, 0.999])
def test_truncated(tmp_path, whole, kept):
  place = folder(NAME, tmp_path)
  (place / 'model.safetensors').write_bytes(whole[:int(kept * len(whole))])
  with pytest.raises(UserError, match='cut off|expected a .safetensors or .npz file'):
    interop.read(place)


def test_a_torch_save_is_a_pickle(tmp_path):
  """Also under another name: both torch.save and np.savez write zip archives."""
  with zipfile.ZipFile(tmp_path / 'weights.npz', 'w') as archive:
    archive.writestr('archive/data.pkl', pickle.dumps(Bomb()))
  with pytest.raises(UserError, match='a Python pickle .torch.save.'):
    interop.read(tmp_path / 'weights.npz')


def test_pickled_arrays(tmp_path):
  array = np.empty(1, object)
  array[0] = Bomb()
  with pytest.raises(UserError, match='cls is pickled'):
    interop.read(_npz(tmp_path / 'weights.npz', cls=array))


def test_zip_bombs(tmp_path):
  path = tmp_path / 'weights.npz'
  np.savez_compressed(path, **{'embedding/kernel': np.zeros((16, 16, 3, 20_000), np.float32)})
  assert path.stat().st_size < 100_000
  with pytest.raises(UserError, match='a zip bomb'):
    interop.read(path)
  header = io.BytesIO()  # small, but claims to be huge
  np.lib.format.write_array_header_1_0(header, {'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40,)})
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('embedding/kernel.npy', header.getvalue() + bytes(64))
  with pytest.raises(UserError, match='got 64 bytes'):
    interop.read(path)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, value):
  changed = golden(NAME).tensors[NORM].copy()
  changed[3] = value
  with pytest.raises(UserError, match='vit.layernorm.weight: expected finite values, got 1 of 32 that are NaN'):
    interop.read(folder(NAME, tmp_path, **{NORM: changed}))


def test_every_tensor_is_accounted_for(tmp_path):
  own = golden(NAME).tensors[NORM]
  cases = {
      'missing': ({NORM: None}, '1 tensor missing: vit.layernorm.weight'),
      'unused': ({'vit.extra': own}, '1 tensor not used by this model: vit.extra'),
      'shape': ({NORM: own[:5]}, r'of another shape: vit.layernorm.weight \(expected \[32\], got \[5\]\)'),
  }
  for name, (changed, message) in cases.items():
    place = folder(NAME, tmp_path / name, **changed)
    with pytest.raises(UserError, match=message):
      interop.read(place)
    weights = interop.read(place, without=('vit.extra', NORM))  # these are excused
    assert ('scale' in weights.params.get('norm', {})) == (name == 'unused')
    assert 'bias' in weights.params['norm']
  block = 'vit.layers.0.mlp.fc1.bias'
  with pytest.raises(UserError, match='part of a block and cannot be left out'):
    interop.read(folder(NAME, tmp_path / 'block', **{block: None}), without=('*intermediate*',))


def test_another_architecture(tmp_path):
  place = folder(NAME, tmp_path)
  (place / 'config.json').write_text(json.dumps(golden('swin-padded').config))
  with pytest.raises(UserError, match='tensors missing.* and [0-9]+ more.*is it another architecture'):
    interop.read(place)
  (place / 'config.json').write_text(json.dumps({'model_type': 'vti'}))
  with pytest.raises(UserError, match="model_type='vti' is not supported; did you mean 'vit'"):
    interop.read(place)
  (place / 'config.json').unlink()
  with pytest.raises(UserError, match='which model is it.*one line with the name of the timm architecture'):
    interop.read(place)


@pytest.mark.parametrize('key, value, message', [
    ('hidden_size', 10**15, r'model\.width=10{15}: must be from 1 to'),
    ('num_hidden_layers', 10**9, 'has 1,000,000,000 blocks'),
    ('num_attention_heads', 0, r'model\.num_heads=0: must be from 1 to'),
    ('hidden_act', 'relu', "hidden_act='relu'"),
    ('layer_norm_eps', 'tiny', 'model.epsilon'), ('image_size', [0, 3], 'preprocessing.size'),
    ('image_size', [8, 24], 'another shape'),
    ('num_channels', 7, 'preprocessing.channels'), ('patch_size', 5, 'does not divide'),
])
def test_a_config_that_contradicts_its_file(tmp_path, key, value, message):
  place = folder(NAME, tmp_path)
  (place / 'config.json').write_text(json.dumps(golden(NAME).config | {key: value}))
  with pytest.raises(UserError, match=message):
    interop.read(place)


def test_an_index_that_points_outside(tmp_path, whole):
  index = {'weight_map': {NORM: '../model.safetensors'}}
  (tmp_path / tensors.INDEX).write_text(json.dumps(index))
  with pytest.raises(UserError, match='expected file names in its own folder'):
    interop.read(tmp_path)
  (tmp_path / 'model-1.safetensors').write_bytes(whole)
  (tmp_path / tensors.INDEX).write_text(json.dumps({'weight_map': {'nowhere': 'model-1.safetensors'}}))
  with pytest.raises(UserError, match='expected nowhere in model-1.safetensors'):
    interop.read(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_are_read_or_refused(tmp_path, whole, data):
  """Any damage gives either a UserError or finite tensors in the shapes of the model."""
  place = folder(NAME, tmp_path)
  header = 8 + int.from_bytes(whole[:8], 'little')
  at = data.draw(st.integers(0, header - 1) | st.integers(0, len(whole) - 1))
  patch = data.draw(st.binary(min_size=1, max_size=16))
  (place / 'model.safetensors').write_bytes(whole[:at] + patch + whole[at + len(patch):])
  try:
    weights = interop.read(place)
  except UserError:
    return
  assert weights.params['norm']['scale'].shape == (32,) and np.isfinite(weights.params['norm']['scale']).all()


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                    max_leaves=5)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from([NAME, 'timm_vit', 'swin-padded', 'resnet-regnet_y', 'timm_convnext']), data=st.data())
def test_any_config_is_read_or_refused(tmp_path, name, data):
  config = copy.deepcopy(golden(name).config)
  processor = {'size': 8, 'image_mean': [0.5], 'do_center_crop': True, 'crop_size': 4, 'resample': 2, 'crop_pct': 0.9}
  for fields in (config, processor, config.get('pretrained_cfg', {})):
    for key in data.draw(st.lists(st.sampled_from(sorted(fields) or ['x']), max_size=2)):
      fields[key] = data.draw(JSON)
  place = folder(name, tmp_path)
  (place / 'config.json').write_text(json.dumps(config))
  (place / 'preprocessor_config.json').write_text(json.dumps(processor))
  try:
    weights = interop.read(place)
  except UserError:
    return
  assert weights.family in ('vit', 'swin', 'resnet', 'convnext')
