"""OpenCLIP's files: the image tower, and both towers, compute what OpenCLIP computes (make_open_clip_golden.py)."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import GOLDEN, TOLERANCE
from test_towers import outputs

import vit_jax
from vit_jax import config, interop
from vit_jax.errors import UserError
from vit_jax.inspection import pair_model
from vit_jax.interop import architectures, tensors
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib

CASES = sorted(path.stem.removeprefix('open_clip_') for path in GOLDEN.glob('open_clip_*.npz'))
# What make_open_clip_golden.py registers in timm.
TRUNK = ('VisionTransformer', dict(embed_dim=16, depth=2, num_heads=2, img_size=8, patch_size=4, class_token=False,
                                   global_pool='map'))


@pytest.fixture(autouse=True)
def _trunk(monkeypatch):
  table = architectures.table() | {'vit_golden': TRUNK}
  monkeypatch.setattr(architectures, 'table', lambda: table)


def golden(case):
  with np.load(GOLDEN / f'open_clip_{case}.npz', allow_pickle=False) as file:
    return dict(file)


def folder(place, arrays, **changes):
  """A folder as `push_to_hf_hub` of OpenCLIP writes it, with some entries of its sections changed."""
  config = json.loads(str(arrays['config']))
  for section, entries in changes.items():
    target = config if section == 'preprocess_cfg' else config['model_cfg']
    target[section] = {**target.get(section, {}), **entries} if isinstance(entries, dict) else entries
  (place / 'open_clip_config.json').write_text(json.dumps(config))
  own = {name.removeprefix('param:'): value for name, value in arrays.items() if name.startswith('param:')}
  tensors.write(place / 'open_clip_model.safetensors', own)
  for name, value in arrays.items():
    if name.startswith('file:'):
      (place / name.removeprefix('file:')).write_bytes(value.tobytes())
  return place


@pytest.mark.parametrize('case', CASES)
def test_the_image_tower(case, tmp_path):
  arrays = golden(case)
  weights = interop.read(folder(tmp_path, arrays))
  assert weights.headless and weights.preprocessing.squeeze and weights.preprocessing.std == (0.25,)
  assert arrays['features'].std(axis=0).max() > 0.05
  np.testing.assert_allclose(outputs(weights, arrays['pixels']), arrays['features'], atol=TOLERANCE)


@pytest.mark.parametrize('case', CASES)
def test_both_towers(case, tmp_path):
  arrays = golden(case)
  pairs = pair_model.load(folder(tmp_path, arrays))
  embedder, texts = pairs.embedder, json.loads(str(arrays['texts']))
  tokens, theirs, end = embedder.tokenizer.encode(texts), arrays['tokens'], embedder.tokenizer.end
  if embedder.model.objective.config.text.causal:  # what follows the end token changes nothing
    theirs = np.where(np.cumsum(theirs == end, axis=1) - (theirs == end) > 0, 0, theirs)
  np.testing.assert_array_equal(tokens, theirs)
  batch = {'image': jnp.asarray(arrays['pixels'].transpose(0, 2, 3, 1)), 'weight': jnp.ones(len(texts)),
           'text': jnp.asarray(tokens)}
  model = embedder.model
  forward = lambda params: model.call(params, {}, lambda m: model.objective.forward(m, batch))[0]
  found = jax.jit(forward)(embedder.params)
  logits = found['scale'][0] * found['image'] @ found['text'].T + found['bias'][0]
  assert arrays['logits'].std() > 0.05
  np.testing.assert_allclose(logits, arrays['logits'], atol=TOLERANCE)


@pytest.mark.parametrize('case', [pytest.param(case, marks=[pytest.mark.slow] if case in ('average', 'trunk') else [])
                                  for case in CASES])
def test_a_run_starts_from_both_towers(case, tmp_path):
  place = folder(tmp_path, golden(case))
  c = config.defaults('vit', 'contrast')
  c.data.source = vit_jax.arrays(np.zeros((40, 8, 8, 3), np.uint8), captions=['a cat'] * 40)
  c.pretrained.path, c.data.batch_size, c.train.steps = str(place), 8, 1
  run, own = run_lib.prepare(run_config.cast(c)), pair_model.load(place)
  assert run.pretrained.new == run.pretrained.otherwise == ()
  jax.tree.map(np.testing.assert_array_equal, run.pretrained.arrays['params'], jax.device_get(own.embedder.params))
  texts = ['A cat &amp; a  dog!', 'two_hearts']
  np.testing.assert_array_equal(run.data.tokenizer.encode(texts), own.embedder.tokenizer.encode(texts))


@pytest.mark.parametrize('changes, words', [
    ({'vision_cfg': {'qk_norm': True}}, 'qk_norm=True: not supported'),
    ({'vision_cfg': {'attentional_pool': True}}, 'attentional_pool=True: not supported'),
    ({'vision_cfg': {'layers': [3, 4, 6, 3]}}, 'its ResNets are not supported'),
    ({'vision_cfg': {'some_option': 1}}, 'some_option=1: an entry that this reader does not know'),
    ({'vision_cfg': {'norm_kwargs': {'elementwise_affine': False}}}, "expected {'eps': ..}"),
    ({'multimodal_cfg': {}}, 'multimodal_cfg={}: an entry that this reader does not know'),
    ({'preprocess_cfg': {'resize_mode': 'longest'}}, "resize_mode='longest': not supported"),
    ({'vision_cfg': None}, 'vision_cfg in its open_clip_config.json: expected an object'),
])
def test_entries_of_the_image_tower_are_honoured_or_refused(tmp_path, changes, words):
  with pytest.raises(UserError, match=words):
    interop.read(folder(tmp_path, golden('clip'), **changes))


@pytest.mark.parametrize('case, changes, words', [
    ('clip', {'embed_cls': True}, 'embed_cls=True: not supported'),
    ('clip', {'pool_type': 'eos'}, "pool_type='eos': not supported"),
    ('clip', {'hf_model_name': 'roberta-base'}, "hf_model_name='roberta-base': not supported"),
    ('clip', {'hf_tokenizer_name': 'x'}, "expected 'last' with hf_tokenizer_name='x'"),
    ('siglip', {'tokenizer_kwargs': {'strip_sep_token': True}}, "expected {'clean': ..}"),
    ('siglip', {'tokenizer_mode': 'clips'}, "tokenizer_mode='clips': not supported"),
    ('siglip', {'some_option': 1}, 'some_option=1: an entry that this reader does not know'),
])
def test_entries_of_the_text_tower_are_honoured_or_refused(tmp_path, case, changes, words):
  with pytest.raises(UserError, match=words):
    interop.sources.read_pairs(folder(tmp_path, golden(case), text_cfg=changes))


def test_quick_gelu_is_honoured(tmp_path):
  arrays = golden('clip')
  found = outputs(interop.read(folder(tmp_path, arrays, quick_gelu=False)), arrays['pixels'])
  assert np.abs(found - arrays['features']).max() > 10 * TOLERANCE


@pytest.mark.parametrize('case', CASES)
def test_golden_files_match_their_script(case, monkeypatch):
  pytest.importorskip('timm')
  pytest.importorskip('open_clip')
  monkeypatch.syspath_prepend(GOLDEN)
  import make_open_clip_golden as script
  fresh, there = script.case_arrays(case), golden(case)
  np.testing.assert_array_equal(fresh['tokens'], there['tokens'])
  for name in ('features', 'logits'):
    np.testing.assert_allclose(fresh[name], there[name], rtol=0, atol=1e-5)
