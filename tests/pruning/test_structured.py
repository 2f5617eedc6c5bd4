"""Importance is the gradient of a gate; a pruned model computes what the full one does without the pruned units."""

import contextlib
import json
import types

import command_line
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import checkpoint, config, records, schema
from vit_jax.data import device_augment
from vit_jax.errors import UserError
from vit_jax.models import FAMILIES, PureModel
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.pruning import pruned_run, structured
from vit_jax.training import config as run_config
from vit_jax.training import run as run_lib
from vit_jax.training import state, trained

SHAPE = dict(patch_size=4, width=16, depth=3, mlp_dim=12, num_heads=4)
VARIANTS = {
    'cls': ('vit', dict(layer_scale=0.5)),
    'map': ('vit', dict(pool='map', qkv_bias=False, pos_embed='rope2d', base_head_dim=4)),
    'deit': ('deit', {}),
}


def _model(name, **changes):
  family, fields = VARIANTS[name]
  return PureModel(family, FAMILIES[family].config(**SHAPE | fields | changes), (8, 8, 1), 10)


def _random(model, seed=0):
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda p: (0.3 * rng.standard_normal(p.shape)).astype(np.float32), model.param_shapes())


def _batch(n=4):
  rng = np.random.default_rng(1)
  return {'image': rng.integers(0, 256, (n, 8, 8, 1), np.uint8), 'label': rng.integers(0, 10, n).astype(np.int32)}


def _gated(params, gates):
  """The parameters with each unit's row of the summing kernel times its gate."""
  kernels = {('encoder', 'blocks', 'attention'): 'out', ('encoder', 'blocks', 'mlp'): 'down'}

  def one(keys, value):
    path = tuple(key.key for key in keys)
    if path[-1] != 'kernel' or kernels.get(path[:-2]) != path[-2]:
      return value
    gate = gates[path[:-2]]
    return value * gate.reshape(*gate.shape, *(1,) * (value.ndim - 2))
  return jax.tree_util.tree_map_with_path(one, params)


@pytest.mark.parametrize('name', VARIANTS)
def test_importance_is_the_squared_slope_of_a_gate(name):
  """Compared with finite differences of a gate on one unit, in several layers."""
  model, batch = _model(name), _batch()
  params = _random(model)
  found = structured.importance(model, params, {}, [batch])
  ones = {('encoder', 'blocks', 'attention'): np.ones((3, 4), np.float32),
          ('encoder', 'blocks', 'mlp'): np.ones((3, 12), np.float32)}

  @jax.jit
  def loss(gates):
    logits = model.apply(_gated(params, gates), {}, device_augment.normalize(batch['image']))[0]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), batch['label'][:, None], axis=1))

  for unit, module in (('heads', ('encoder', 'blocks', 'attention')), ('mlp', ('encoder', 'blocks', 'mlp'))):
    for layer, which in ((0, 1), (2, 3)):
      def at(value, layer=layer, which=which, module=module):
        gate = ones[module].copy()
        gate[layer, which] = value
        return float(loss(ones | {module: gate}))
      slope = (at(1.05) - at(0.95)) / 0.1
      assert found[unit][module][layer, which] == pytest.approx(slope**2, rel=0.05, abs=1e-6)
  assert ('attention_pool',) in found['heads'] or name != 'map'


@pytest.mark.parametrize('name', VARIANTS)
def test_pruning_units_without_effect_leaves_the_logits_unchanged(name):
  """Units whose rows of the summing kernel are zero are the ones found and removed."""
  model = _model(name)
  params, axes = _random(model), model.param_axes()
  rng = np.random.default_rng(3)
  keep = lambda layers, units, n: np.sort(np.stack([rng.permutation(units)[:n] for _ in range(layers)]), axis=-1)
  best = {('encoder', 'blocks', 'attention'): keep(3, 4, 2), ('encoder', 'blocks', 'mlp'): keep(3, 12, 7)}
  if name == 'map':
    best |= {('attention_pool',): keep(1, 4, 2)[0], ('attention_pool', 'mlp'): keep(1, 12, 7)[0]}
  for module, index in best.items():
    node = params
    for key in module:
      node = node[key]
    kernel = node['out' if 'out' in node else 'down']['kernel']
    for layer, kept in enumerate(np.atleast_2d(index)):
      rows = kernel[layer] if index.ndim == 2 else kernel
      rows[[i for i in range(len(rows)) if i not in kept]] = 0
  batch = _batch(16)
  found = structured.importance(model, params, {}, [batch])
  for module, index in best.items():
    scores = next(found[unit][module] for unit in found if module in found[unit])
    np.testing.assert_array_equal(np.sort(np.argsort(scores, axis=-1)[..., -index.shape[-1]:], axis=-1), index)
  smaller = _model(name, num_heads=2, head_dim=4, mlp_dim=7)
  images = device_augment.normalize(batch['image'])
  ours = smaller.apply(structured.take(params, axes, best), {}, images)[0]
  np.testing.assert_allclose(ours, model.apply(params, {}, images)[0], rtol=1e-4, atol=1e-4)


def test_importance_is_of_pictures_scaled_as_the_run_scales_them(monkeypatch):
  c = config.defaults('vit')
  c.data.mean, c.data.std = (0.25,), (0.125,)
  seen = []

  def importance(model, params, stats, batches, normalize):
    seen.append(normalize(np.full((1, 1, 1, 1), 255, np.uint8)))
    raise UserError('seen')

  monkeypatch.setattr(structured, 'importance', importance)
  monkeypatch.setattr(structured, '_batches', lambda source, examples: [])
  source = types.SimpleNamespace(config=run_config.cast(c), model=None, params={}, stats={})
  with pytest.raises(UserError, match='seen'):
    structured.prune(source, {'heads': 0.5})
  np.testing.assert_allclose(seen[0], (1 - 0.25) / 0.125)


def test_the_share_that_is_kept():
  assert [structured._kept('heads', share, 3) for share in (0, 0.3, 0.5, 0.67)] == [3, 2, 1, 1]
  for share, message in ((1.0, r'must be in \[0, 1\)'), (-0.1, r'--heads=-0\.1'), (0.9, 'leaves none of 3')):
    with pytest.raises(UserError, match=message):
      structured._kept('heads', share, 3)


@pytest.fixture(name='source')
def _source(tiny_config, tmp_path):
  """A run folder with a checkpoint of random parameters."""
  run = run_lib.prepare(run_config.cast(tiny_config))
  train_state = state.create(run.model, run.config, mesh_lib.single_device())
  train_state = train_state._replace(params=jax.tree.map(jnp.asarray, _random(run.model)))
  with contextlib.closing(checkpoint.Checkpoints(tmp_path / 'whole')) as checkpoints:
    checkpoints.save(16, state.to_plain(train_state), {'metrics_bytes': 0})
  records.write_run(tmp_path / 'whole', run.record() | {'status': 'finished', 'results': {'step': 16}})
  return tmp_path / 'whole'


@pytest.mark.slow
def test_a_pruned_run_loads_predicts_and_has_its_own_identity(source, tmp_path):
  done = command_line.run('prune', source, '--heads=0.5', '--mlp=0.75', '--examples=64',
                          f'--workdir={tmp_path / "small"}')
  assert done.returncode == 0, done.stderr
  assert 'kept        4 of 8 heads and 8 of 32 MLP units in each of 2 layers' in done.stdout
  small = trained.load(tmp_path / 'small')
  shape = small.config.model
  assert (shape.num_heads, shape.head_dim, shape.mlp_dim) == (4, 2, 8)
  assert small.params['encoder']['blocks']['attention']['qkv']['kernel'].shape == (2, 16, 4, 3, 2)
  images = [np.zeros((8, 8, 1), np.uint8), np.full((8, 8, 1), 255, np.uint8)]
  expected, _ = structured.prune(trained.load(source), {'heads': 0.5, 'mlp': 0.75}, 64)
  np.testing.assert_allclose(small(images), expected(images), rtol=1e-5)
  record = json.loads((tmp_path / 'small' / 'run.json').read_text())
  whole = json.loads((source / 'run.json').read_text())
  assert record['lineage']['pruned_from'] == whole['config_hash'] and record['status'] == 'pruned'
  assert record['config_hash'] not in (whole['config_hash'], schema.config_hash(small.config))
  assert record['params'] < whole['params'] / 1.5 and record['config']['model']['head_dim'] == 2
  with pytest.raises(UserError, match='holds a run'):
    pruned_run.write(small, tmp_path / 'small', source, {})


def test_other_families_are_refused():
  c = run_config.cast(config.defaults('convnext'))
  with pytest.raises(UserError, match='family=convnext: .* only families vit and deit'):
    structured.prune(types.SimpleNamespace(config=c), {'heads': 0.5})
  with pytest.raises(UserError, match='run folder of vit_jax.main'):
    structured.prune(types.SimpleNamespace(config=None), {'heads': 0.5})
