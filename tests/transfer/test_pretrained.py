"""Runs that start from pretrained weights: the config, the state on any mesh, frozen parts, and the probe."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from vit_jax import config, interop, records
from vit_jax.errors import UserError
from vit_jax.interop import bundle
from vit_jax.optimisation import layerwise, trainable
from vit_jax.optimisation.optimizer import OptimizerConfig
from vit_jax.training import config as run_config
from vit_jax.training import frozen, loop, run_folder, state, trained
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display
from vit_jax.transfer import pretrained, probe


@pytest.fixture(name='teacher', scope='module')
def _pretrained_run(tmp_path_factory):
  """A ViT trained on the digits, as a bundle with a preprocessing of its own."""
  c = config.defaults('vit')
  c.model.update(dict(patch_size=4, width=16, depth=2, mlp_dim=32, num_heads=8))
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate, c.evaluate.every = 64, 80, 1e-2, 40
  folder = tmp_path_factory.mktemp('pretrained')
  loop.train(run_lib.prepare(run_config.cast(c)), folder / 'run', Display())
  weights = interop.read(folder / 'run')
  preprocessing = dataclasses.replace(weights.preprocessing, mean=(0.4,), std=(0.3,), interpolation='bicubic', crop=0.9)
  bundle.write(dataclasses.replace(weights, preprocessing=preprocessing), folder / 'bundle')
  return folder / 'bundle'


def _recipe(path, **changes):
  c = config.defaults('vit')
  c.pretrained.path = str(path)
  c.data.batch_size, c.train.steps, c.optimizer.learning_rate, c.evaluate.every = 32, 4, 1e-2, 4
  with c.unlocked():
    for key, value in changes.items():
      node, *parts = c, *key.split('__')
      for part in parts[:-1]:
        node = node[part]
      node[parts[-1]] = value
  return run_config.cast(c)


def test_the_weights_set_the_model_and_its_preprocessing(teacher):
  run = run_lib.prepare(_recipe(teacher, model__dropout=0.1))
  assert run.config.model.width == 16 and run.config.model.dropout == 0.1 and run.data.image_shape == (8, 8, 1)
  data = run.config.data
  assert (data.mean, data.std, data.interpolation, data.augment.eval_crop) == ((0.4,), (0.3,), 'bicubic', 0.9)
  larger = run_lib.prepare(_recipe(teacher, data__image_size=(16, 8), data__mean=(0.5,)))
  assert larger.data.image_shape == (16, 8, 1) and larger.config.data.mean == (0.5,)
  assert larger.pretrained.arrays['params']['pos_embed'].shape == (8, 16)


def test_identity_depends_on_the_bits_not_on_the_path(teacher, tmp_path):
  shutil.copytree(teacher, tmp_path / 'elsewhere')
  hashes = [run_lib.prepare(_recipe(path)).config_hash for path in (teacher, tmp_path / 'elsewhere')]
  assert hashes[0] == hashes[1]
  weights = interop.read(teacher)
  other = dataclasses.replace(weights, params=weights.params | {'cls': weights.params['cls'] + 1})
  assert pretrained.digest(other) != pretrained.digest(weights)
  bundle.write(other, tmp_path / 'other')
  assert run_lib.prepare(_recipe(tmp_path / 'other')).config_hash != hashes[0]
  digest = run_lib.prepare(_recipe(teacher)).config.pretrained.digest
  with pytest.raises(UserError, match=f'expected weights with pretrained.digest={digest}, got '):
    run_lib.prepare(_recipe(tmp_path / 'other', pretrained__digest=digest))


def _filled(run):
  return run.pretrained.fill(state.create(run.model, run.config, run.mesh))


@pytest.mark.parametrize('mesh', [dict(data=8), dict(data=2, fsdp=2, tensor=2)])
def test_every_mesh_starts_from_the_same_weights(teacher, mesh):
  run = run_lib.prepare(_recipe(teacher, system__mesh=mesh, optimizer__ema_decay=0.9))
  train_state, weights = _filled(run), interop.read(teacher)
  for tree in (train_state.params, train_state.ema):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(tree), weights.params)
  assert jax.tree.map(lambda a: a.sharding, train_state.params) == jax.tree.map(
      lambda a: a.sharding, state.abstract(run.model, run.config, run.mesh).params)


@pytest.mark.slow
def test_a_run_from_weights_learns_and_resumes_with_a_copy_of_them_and_with_no_others(teacher, tmp_path):
  run, folder = run_lib.prepare(_recipe(teacher, train__steps=8)), tmp_path / 'run'
  results = loop.train(run, folder, Display())
  assert results['test']['accuracy'] > 0.7  # from scratch, eight steps reach a fifth of that
  assert records.read_run(folder)['pretrained'] == {'source': str(teacher), 'new': []}
  undisturbed = (folder / 'metrics.jsonl').read_bytes()
  shutil.rmtree(folder / 'checkpoints' / '8')
  record = records.read_run(folder)
  record['status'] = record.pop('results') and 'running'
  records.write_run(folder, record)
  weights = interop.read(teacher)
  bundle.write(dataclasses.replace(weights, params=weights.params | {'cls': weights.params['cls'] + 1}), tmp_path / 'b')
  with pytest.raises(UserError, match=r"holds another run .*Here pretrained.digest: '\w+', there '\w+'"):
    run_folder.finished_results(run_lib.prepare(_recipe(tmp_path / 'b', train__steps=8)), folder)
  shutil.copytree(teacher, tmp_path / 'elsewhere')
  run = run_lib.prepare(_recipe(tmp_path / 'elsewhere', train__steps=8))
  assert run_folder.finished_results(run, folder) is None
  loop.train(run, folder, Display())
  assert (folder / 'metrics.jsonl').read_bytes() == undisturbed
  used = trained.load(folder)
  assert used.preprocessing.mean == (0.4,) and used.preprocessing.interpolation == 'bicubic'


def test_a_frozen_backbone_stays_the_same_bit_for_bit_and_has_no_optimizer_state(teacher, tmp_path):
  run = run_lib.prepare(_recipe(teacher, optimizer__train_only=('head/*',), optimizer__weight_decay=0.1))
  before = jax.device_get(_filled(run).params)
  shapes = jax.eval_shape(lambda: state.init(run.model, run.config, state.hparams(run.config.optimizer, 0)))
  assert {a.shape for a in jax.tree.leaves(shapes.optimizer) if a.ndim} == {(16, 10), (10,)}
  loop.train(run, tmp_path, Display())
  after = interop.read(tmp_path).params
  for path, array in traverse_util.flatten_dict(after).items():
    same = np.array_equal(array, traverse_util.flatten_dict(before)[path])
    assert same != (path[0] == 'head'), path
  with pytest.raises(UserError, match=r"train_only='heads/\*'.*there are .*head/\*"):
    run_lib.prepare(_recipe(teacher, optimizer__train_only=('heads/*',)))


def test_early_layers_move_less(teacher, tmp_path):
  """A step of SGD with layer-wise decay is the plain step times the rate of each layer."""
  sgd = dict(train__steps=1, optimizer__name='sgd', optimizer__clip_norm=0.0, optimizer__weight_decay=0.1)
  moved = {}
  for decay in (1.0, 0.5):
    run = run_lib.prepare(_recipe(teacher, optimizer__layer_decay=decay, **sgd))
    loop.train(run, tmp_path / str(decay), Display())
    before, after = interop.read(teacher).params, interop.read(tmp_path / str(decay)).params
    moved[decay] = jax.tree.map(np.subtract, after, before)
  rates = layerwise.rates(OptimizerConfig(layer_decay=0.5), run.model)
  jax.tree.map(lambda half, whole, rate: np.testing.assert_allclose(half, whole * rate, rtol=1e-4, atol=1e-7),
               moved[0.5], moved[1.0], rates)
  assert all(np.any(leaf) for leaf in jax.tree.leaves(moved[1.0]))


def test_no_backward_pass_through_frozen_parameters():
  params = {'a': {'kernel': jnp.ones((4, 4))}, 'head': {'kernel': jnp.ones((4, 2))}}
  which = {('a', 'kernel'): False, ('head', 'kernel'): True}

  def loss(params, x):
    params = trainable.frozen(params, which)
    return jnp.sum(jnp.tanh(x @ params['a']['kernel']) @ params['head']['kernel'])

  jaxpr = str(jax.make_jaxpr(jax.grad(loss))(params, jnp.ones((3, 4))))
  assert jaxpr.count('dot_general') == 3  # two forward, one for the head's gradient
  part = trainable.select(params, which)
  assert set(part) == {'head'} and trainable.merged(params, part, which) == params


@pytest.mark.slow
def test_probe_and_neighbours_of_frozen_features(teacher, tmp_path):
  run, notes = run_lib.prepare(_recipe(teacher, pretrained__probe='always')), []
  assert frozen.wanted(run) and not frozen.wanted(run_lib.prepare(_recipe(teacher)))
  results = frozen.run_probe(run, tmp_path / 'run', notes.append)
  assert min(results['linear'], results['knn']) > 0.85 and results['examples'] == {
      'train': 1293, 'val': 144, 'test': 360}
  first = json.loads((tmp_path / 'run' / 'probe' / 'probe.json').read_text())['results']
  again = frozen.run_probe(run_lib.prepare(_recipe(teacher, optimizer__learning_rate=0.5)), tmp_path / 'other',
                          notes.append)
  assert sum(' from ' in note for note in notes) == 3  # the features of all splits, although this is another run
  assert again['linear'] == first['linear']
  used, (images, labels) = trained.load(results['bundle']), run.data.arrays('test').values()
  accuracy = (used.probabilities(list(images)).argmax(1) == labels).mean()
  assert accuracy == pytest.approx(results['linear'], abs=1e-6)  # the bundle is the model that was scored
  card = (pathlib.Path(results['bundle']) / 'README.md').read_text()
  assert f'| digits | test | 360 | accuracy | {results["linear"]:.4g} |' in card
  assert 'a linear probe on the features of the frozen model' in card and '| steps |' not in card


def test_the_vote_and_the_head():
  rng = np.random.default_rng(0)
  centres = 3 * rng.standard_normal((4, 8)).astype(np.float32)
  labels = rng.integers(0, 3, 90)  # no picture of the fourth class was readable
  train = probe.Features(centres[labels] + 0.1 * rng.standard_normal((90, 8)).astype(np.float32), labels)
  assert (probe.neighbours(train, 5 * train.features, 4) == labels).all()  # lengths do not matter
  few = probe.Features(train.features[:5], labels[:5])
  assert (probe.neighbours(few, few.features, 4) == few.labels).all()
  kernel, bias, _, accuracy = probe.linear(train, train, 4)
  assert accuracy == 1 and ((train.features @ kernel + bias).argmax(1) == labels).all()
  two = probe.Features(train.features[labels < 2], labels[labels < 2])
  kernel, bias, _, _ = probe.linear(two, None, 4)
  assert ((two.features @ kernel + bias).argmax(1) == two.labels).all()


@pytest.mark.parametrize('changes, message', [
    (dict(model__pool='gap'), r'1 array does not fit.*\n  cls \(16,\): not in this model'),
    (dict(pretrained__path=None, pretrained__probe='always'),
     'pretrained.probe=.always.: no weights to start from'),
    (dict(pretrained__path='nowhere'), 'nowhere.*\n.*read from pretrained.path=nowhere'),
    (dict(optimizer__layer_decay=1.5), 'optimizer.layer_decay=1.5: must be positive and at most 1'),
])
def test_bad_input(teacher, changes, message):
  with pytest.raises(UserError, match=message):
    run_lib.prepare(_recipe(teacher, **changes))


def test_the_family_of_the_weights_is_used_unless_a_shape_is_set(teacher):
  c = config.defaults('swin')
  c.pretrained.path = str(teacher)
  plain = run_config.cast(c)
  assert pretrained.resolve(plain).family == 'vit'
  shaped = dataclasses.replace(plain, model=dataclasses.replace(plain.model, window_size=3))
  with pytest.raises(UserError, match="weights of family 'vit', but model.window_size is set for family 'swin'"):
    pretrained.resolve(shaped)
