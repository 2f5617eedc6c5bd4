"""ONNX files: every family as onnxruntime computes it, for any batch size; what does not come out right is refused."""

import json
import sys
import types

import jax
import numpy as np
import pytest

from vit_jax import models
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import bundle, onnx_file, writers
from vit_jax.interop.weights import Weights
from vit_jax.models import PureModel
from vit_jax.training import trained

VIT = dict(patch_size=8, width=16, depth=2, mlp_dim=32, num_heads=2)
FAMILIES = {
    'vit': ('vit', VIT), 'deit': ('deit', VIT), 'mixer': ('mixer', dict(
        patch_size=8, width=16, depth=1, mlp_dim=32, tokens_mlp_dim=8)),
    'convnext': ('convnext', dict(depths=(1, 1), widths=(8, 16))),
    'swin': ('swin', dict(patch_size=2, width=8, depths=(2, 2), num_heads=(1, 2), window_size=4)),
    'resnet': ('resnet', dict(depths=(1, 1), widths=(16, 32))),  # max pooling
    'regnet': ('resnet', dict(depths=(1, 1), widths=(16, 32), group_width=4, stem='half')),
    'vit, rotary positions': ('vit', VIT | dict(pos_embed='rope2d', pool='gap', gelu='tanh', mlp='swiglu')),
    'vit, registers': ('vit', VIT | dict(pos_embed='rope2d_centred', layer_scale=0.1, global_tokens=2, qk_norm=True)),
    'vit, attention pooling': ('vit', VIT | dict(pool='map', gelu='quick', pre_norm=True)),
    'vit, relative positions': ('vit', VIT | dict(pos_embed='relative', dtype='bfloat16', last_norm='pooled')),
    'vit, linear attention': ('vit', VIT | dict(attention='linear')),
    'vit, local attention': ('vit', VIT | dict(attention='local', attention_radius=1)),
    'vit, hybrid': ('vit', VIT | dict(stem='resnet', stem_depths=(1, 1), stem_width=8)),
}


def weights(family, fields, **more):
  model, rng = PureModel(family, models.family(family).config(**fields), (32, 32, 3), 5), np.random.default_rng(0)
  params = jax.tree.map(lambda s: rng.normal(0, 0.2, s.shape).astype(np.float32), model.param_shapes())
  stats = jax.tree.map(lambda s: rng.uniform(0.5, 1.5, s.shape).astype(np.float32), model.stats_shapes())
  prepare = Preprocessing((32, 32), 3, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
  return Weights('mine', family, fields, params, stats, prepare, tuple('abcde'), **more)


@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_onnxruntime_computes_what_we_do(name, tmp_path):
  runtime, given = pytest.importorskip('onnxruntime'), weights(*FAMILIES[name], temperature=1.7)
  pytest.importorskip('jax2onnx')
  writers.write(given, tmp_path / 'm.onnx', 'onnx')
  bundle.write(given, tmp_path / 'bundle')
  session, ours = runtime.InferenceSession(tmp_path / 'm.onnx'), trained.load(tmp_path / 'bundle')
  for size in (1, 3, 8):
    images = np.random.default_rng(size).integers(0, 256, (size, 32, 32, 3)).astype(np.uint8)
    logits, probabilities = session.run(['logits', 'probabilities'], {'images': images})
    np.testing.assert_allclose(probabilities, ours.probabilities(list(images)),
                               atol=2e-2 if given.model.get('dtype') else 1e-4)
    right = np.exp(logits / 1.7) / np.exp(logits / 1.7).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, right, atol=1e-5)
  told = json.loads(session.get_modelmeta().custom_metadata_map['vit_jax'])
  assert told['class_names'] == list('abcde') and told['temperature'] == 1.7 and not told['several_labels']
  assert told['preprocessing'] | {'size': [32, 32], 'mean': [0.4, 0.5, 0.6], 'std': [0.2, 0.3, 0.4]} == (
      told['preprocessing'])


class _Graph:
  """As much of an ONNX model as `write` looks at."""
  def __init__(self):
    self.graph, self.metadata_props = types.SimpleNamespace(node=[]), self
    self.told = {}

  def add(self, key, value):
    self.told[key] = value

  def SerializeToString(self):  # noqa: N802
    return b'onnx'


def _stubbed(monkeypatch, convert, error=0.0):
  def session(text, options):
    def run(names, feeds):
      return [np.asarray(out) + error for out in jax.jit(forward[0])(feeds['images'])]
    return types.SimpleNamespace(run=run)
  forward = []

  def to_onnx(function, inputs, **_):
    forward.append(function)
    return convert()
  runtime = types.SimpleNamespace(InferenceSession=session, SessionOptions=types.SimpleNamespace)
  monkeypatch.setattr(onnx_file, '_libraries', lambda: (types.SimpleNamespace(to_onnx=to_onnx), runtime))


def test_what_is_not_converted_or_comes_out_wrong_is_not_written(tmp_path, monkeypatch):
  def fails():
    raise NotImplementedError('primitive foo')
  given = weights('vit', VIT)
  _stubbed(monkeypatch, fails)
  with pytest.raises(UserError, match=r'does not take this vit \(primitive foo\); --to=stablehlo does'):
    writers.write(given, tmp_path / 'a.onnx', 'onnx')
  for error in (0.1, np.nan):
    _stubbed(monkeypatch, _Graph, error)
    with pytest.raises(UserError, match='the logits of this vit come out of onnxruntime with an error of'):
      writers.write(given, tmp_path / 'a.onnx', 'onnx')
  assert not list(tmp_path.iterdir())
  _stubbed(monkeypatch, _Graph)
  writers.write(given, tmp_path / 'a.onnx', 'onnx')
  assert (tmp_path / 'a.onnx').read_bytes() == b'onnx'


def test_what_is_missing_is_said(tmp_path, monkeypatch):
  with pytest.raises(UserError, match='expected a name that ends in .onnx'):
    writers.write(weights('vit', VIT), tmp_path / 'model', 'onnx')
  monkeypatch.setitem(sys.modules, 'jax2onnx', None)
  with pytest.raises(UserError, match='expected jax2onnx and onnxruntime to be installed .*uv run --extra onnx'):
    writers.write(weights('vit', VIT), tmp_path / 'model.onnx', 'onnx')


@pytest.mark.parametrize('name', ['vit, local attention', 'vit, hybrid'])
def test_stablehlo_is_for_any_batch_too(name, tmp_path):
  given = weights(*FAMILIES[name])
  writers.write(given, tmp_path / 'm.stablehlo', 'stablehlo')
  assert trained.load(tmp_path / 'm.stablehlo')([np.zeros((32, 32, 3), np.uint8)] * 3, 3).shape == (3, 5)
