"""Models of transformers and timm compute the same here once they are read, from golden files.

They are made by make_towers_golden.py, and those of timm by make_timm_golden.py, in tests/golden.
"""

import json

import jax
import numpy as np
import pytest
from golden_files import GOLDEN, TOLERANCE, TOWERS

from vit_jax import interop
from vit_jax.errors import UserError
from vit_jax.interop import tensors
from vit_jax.models import PureModel

CASES = [name.removeprefix('tower_') for name in TOWERS]
_REFUSED = ('dinov2_classifier',)  # its classifier reads the class token beside the mean of the patches


def saved(case, place, **files):
  """(images, outputs) of a golden file, whose model is written to a folder as transformers writes it."""
  with np.load(GOLDEN / f'tower_{case}.npz', allow_pickle=False) as file:
    arrays = dict(file)
  (place / 'config.json').write_text(str(arrays['config']))
  for name, content in files.items():
    (place / f'{name}.json').write_text(json.dumps(content))
  own = {key.removeprefix('param:'): value for key, value in arrays.items() if key.startswith('param:')}
  tensors.write(place / 'model.safetensors', own, {'format': 'pt'})
  return arrays['images'], arrays['outputs']


def processor(side):
  return {'image_processor_type': 'BitImageProcessor', 'size': {'shortest_edge': side + 4},
          'crop_size': {'height': side, 'width': side}, 'do_convert_rgb': True}


def outputs(weights, images):
  """Logits, or the pooled features of a backbone."""
  model = PureModel(weights.family, weights.config, weights.image_shape, weights.num_classes or 1)
  params = {key: weights.params.get(key, jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), tree))
            for key, tree in model.param_shapes().items()}
  logits, found, _ = jax.jit(lambda x: model.apply(params, weights.stats, x))(images.transpose(0, 2, 3, 1))
  return found['pre_logits'] if weights.headless else logits


@pytest.mark.parametrize('case', [case for case in CASES if case not in _REFUSED])
def test_outputs(case, tmp_path):
  images, expected = saved(case, tmp_path)
  weights = interop.read(tmp_path)
  if case == 'dinov2_resized' or case == 'dinov2_registers':
    assert weights.preprocessing.size == (24, 24)  # nothing tells another size
    saved(case, tmp_path, preprocessor_config=processor(images.shape[2]))
    weights = interop.read(tmp_path)
  assert weights.preprocessing.size == images.shape[2:]
  assert weights.headless == ('classifier' not in case and 'timm' not in case)
  assert expected.std(axis=0).max() > 0.05
  np.testing.assert_allclose(outputs(weights, images), expected, atol=TOLERANCE)


def test_a_classifier_that_is_not_supported_can_be_left_out(tmp_path):
  images, _ = saved('dinov2_classifier', tmp_path)
  with pytest.raises(UserError, match=r'--without=classifier\.\*'):
    interop.read(tmp_path)
  weights = interop.read(tmp_path, without=('classifier.*',))
  assert weights.headless and np.isfinite(outputs(weights, images)).all()


@pytest.mark.parametrize('case', ['clip', 'siglip_vision'])
def test_towers_that_do_not_resize_positions_want_pictures_of_their_size(case, tmp_path):
  of_32 = {'clip': dict(processor(32), image_processor_type='CLIPImageProcessor'),
           'siglip_vision': {'image_processor_type': 'SiglipImageProcessor', 'size': {'height': 32, 'width': 32}}}
  saved(case, tmp_path, preprocessor_config=of_32[case])
  with pytest.raises(UserError, match='32x32'):
    interop.read(tmp_path)


@pytest.mark.parametrize('case', CASES)
def test_golden_files_match_their_script(case, monkeypatch):
  pytest.importorskip('timm')
  pytest.importorskip('transformers', minversion='5.23.0')
  monkeypatch.syspath_prepend(GOLDEN)
  import make_timm_golden
  import make_towers_golden
  timm = case.removeprefix('timm_') in make_timm_golden.READ_ONLY and case.startswith('timm_')
  fresh = (make_timm_golden.case_arrays(case.removeprefix('timm_')) if timm else make_towers_golden.case_arrays(case))
  with np.load(GOLDEN / f'tower_{case}.npz', allow_pickle=False) as there:
    np.testing.assert_array_equal(fresh['images'], there['images'])
    np.testing.assert_allclose(fresh['logits' if timm else 'outputs'], there['outputs'], rtol=0, atol=1e-5)
