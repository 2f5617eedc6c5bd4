"""Batch norm's statistics in a run: they are averaged with the parameters, saved and resumed."""

import contextlib
import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest
from flax import traverse_util
from rich.console import Console

from vit_jax import checkpoint, records, schema
from vit_jax import config as config_lib
from vit_jax.data import device_augment
from vit_jax.models import FAMILIES
from vit_jax.optimisation import optimizer
from vit_jax.optimisation.optimizer import OptimizerConfig
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import config as run_config
from vit_jax.training import evaluate, loop, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display
from vit_jax.training.step import make_step


def _config(**optimizer_fields):
  c = config_lib.defaults('resnet')
  c.model.update(depths=(2,), widths=(16,), stem='full', stem_width=8)
  c.data.batch_size, c.train.steps, c.evaluate.every, c.system.log_every = 32, 30, 10, 10
  c.optimizer.learning_rate = 1e-2
  c.optimizer.update(optimizer_fields)
  return c


def _display():
  return Display(Console(quiet=True))


def _final(run, workdir):
  """The state of the last checkpoint, on the host."""
  like = state.to_plain(state.abstract(run.model, run.config, run.mesh))
  with contextlib.closing(checkpoint.Checkpoints(workdir, read_only=True)) as checkpoints:
    return jax.device_get(checkpoints.restore(checkpoints.latest(), like))


@pytest.fixture(name='trained', scope='module')
def _trained(tmp_path_factory):
  """(run, folder) of a run whose parameters are averaged."""
  workdir = tmp_path_factory.mktemp('batch_norm') / 'run'
  run = run_lib.prepare(run_config.cast(_config(ema_decay=0.9)))
  loop.train(run, workdir, _display())
  return run, workdir


def test_averaged_statistics_match_the_averaged_parameters(trained):
  """The statistics used in evaluation are close to those of the training set under the averaged parameters."""
  run, workdir = trained
  final = _final(run, workdir)
  batches = run.data.train_batches(0, 0, run.data.unique_examples // 32)
  images = np.concatenate([batch['image'] for batch in batches]).astype(np.float32)
  keys = jax.random.split(jax.random.key(0), len(images))
  stats_of = lambda params, stats, images: run.model.apply(params, stats, device_augment.normalize(images), keys)[2]
  exact = jax.jit(stats_of)(final['ema'], final['stats'], images)
  ours, exact = (traverse_util.flatten_dict(jax.device_get(tree)) for tree in (final['stats'], exact))
  for path in ours:
    if path[-1] == 'var':
      deviation, mean = np.sqrt(exact[path]), (*path[:-1], 'mean')
      assert np.median(np.abs(ours[mean] - exact[mean]) / deviation) < 0.2, path
      assert np.median(np.abs(np.sqrt(ours[path]) / deviation - 1)) < 0.2, path


def test_a_resumed_run_ends_in_the_same_bits(trained, tmp_path):
  run, undisturbed = trained
  workdir = tmp_path / 'run'
  shutil.copytree(undisturbed, workdir)
  shutil.rmtree(workdir / records.CHECKPOINTS / '30')
  record = json.loads((workdir / records.RUN).read_text())
  (workdir / records.RUN).write_text(json.dumps({k: v for k, v in record.items() if k != 'results'}))
  notes = []
  display = _display()
  display.note = notes.append
  loop.train(run, workdir, display)
  assert 'resumed at step 20 of 30' in notes
  assert (workdir / records.METRICS).read_bytes() == (undisturbed / records.METRICS).read_bytes()
  ours, theirs = (_final(run, folder) for folder in (workdir, undisturbed))
  jax.tree.map(np.testing.assert_array_equal, ours, theirs)
  assert ours['stats']


def test_statistics_are_averaged_with_the_weights_of_the_parameters():
  """If the statistics equal the parameters that they were measured with, their averages are equal, one update apart."""
  config = OptimizerConfig(ema_decay=0.99)
  values = np.random.default_rng(0).normal(size=50).astype(np.float32)
  ema, stats = {'a': values[0]}, {'a': np.float32(7)}  # the first batch replaces the initial statistics
  for step in range(len(values) - 1):
    stats = optimizer.average_stats(config, stats, {'a': values[step]}, step)  # measured before the update
    np.testing.assert_allclose(stats['a'], ema['a'], rtol=1e-5)
    ema = optimizer.moving_average(ema, {'a': values[step + 1]}, config.ema_decay, step)
  plain = {'a': np.float32(0)}
  for step in range(200):
    plain = optimizer.average_stats(OptimizerConfig(), plain, {'a': np.float32(step)}, step)
  assert 185 < plain['a'] < 195


def test_micro_batches_are_part_of_the_identity_and_noted_in_the_header(trained, tmp_path):
  run, workdir = trained
  halved = dataclasses.replace(run.config, system=dataclasses.replace(run.config.system, microbatches=2))
  assert run_config.run_hash(halved) != run_config.run_hash(run.config)
  split = dataclasses.replace(run, config=halved)
  display = Display(Console(record=True, width=200, quiet=True))
  shown = []
  for each in (run, split):
    display.console = Console(record=True, width=200, file=open(tmp_path / 'out', 'w'))
    display.header(each, 'name', tmp_path)
    shown.append(display.console.export_text())
  assert 'batch norm' not in shown[0] and '2 micro-batches of a step (16 images)' in shown[1]

  vit = run_config.cast(config_lib.defaults('vit'))
  accumulated = dataclasses.replace(vit, system=dataclasses.replace(vit.system, microbatches=2))
  assert run_config.run_hash(accumulated) == run_config.run_hash(vit) == schema.config_hash(vit)


@pytest.mark.parametrize('family', FAMILIES)
def test_families_with_statistics_have_batch_norm(family):
  from vit_jax.models import PureModel
  model = PureModel(family, FAMILIES[family].config(), (64, 64, 3), 3)
  assert bool(model.stats_shapes()) == FAMILIES[family].batch_norm


def _frozen(sizes=(1, 1, 1), microbatches=0, patterns=('head/*',), **optimizer_fields):
  """(run, its state with statistics as after some training), of a run that trains these parameters."""
  c = _config(train_only=patterns, **optimizer_fields)
  c.system.microbatches = microbatches
  run = run_lib.prepare(run_config.cast(c))
  run = dataclasses.replace(run, mesh=mesh_lib.make_mesh(mesh_lib.MeshConfig(*sizes), jax.devices()[:math.prod(sizes)]))
  train_state, rng = state.create(run.model, run.config, run.mesh), np.random.default_rng(0)
  draw = lambda a: jax.device_put(rng.uniform(0.1, 0.5, a.shape).astype(np.float32), a.sharding)
  return run, train_state._replace(stats=jax.tree.map(draw, train_state.stats))


def _after(run, train_state, steps=5, packed=False):
  """(state, metrics of the first step) after some steps."""
  step = mesh_lib.traced_on(run.mesh, make_step(run.model, run.resolved, run.steps))
  step, first = jax.jit(jax.vmap(step) if packed else step), None
  stack = lambda tree: jax.tree.map(lambda a: np.stack([a, a]), tree)
  train_state = stack(train_state) if packed else train_state
  for batch in run.data.train_batches(0, 0, steps):
    train_state, metrics = step(train_state, stack(batch) if packed else run.place(batch))
    first = first or metrics
  return jax.device_get(train_state), first


def _moved(before, after):
  """The names of the arrays that changed by a bit, without the last part: {'stem/norm', ..}."""
  before, after = (traverse_util.flatten_dict(jax.device_get(tree)) for tree in (before, after))
  return {'/'.join(map(str, path[:-1])) for path in before if before[path].tobytes() != after[path].tobytes()}


@pytest.mark.parametrize('how', [{}, {'microbatches': 4}, {'sizes': (2, 2, 1)}, {'ema_decay': 0.9}],
                         ids=['alone', 'micro-batches', 'mesh', 'averaged'])
def test_the_statistics_of_a_frozen_model_do_not_move(how):
  run, before = _frozen(**how)
  after, _ = _after(run, before)
  assert not _moved(before.stats, after.stats)
  assert _moved(before.params, after.params) == {'head'}


def test_nor_do_those_of_packed_runs():
  run, before = _frozen()
  after, _ = _after(run, before, packed=True)
  assert not _moved(before.stats, jax.tree.map(lambda a: a[1], after.stats))
  assert _moved(before.params, jax.tree.map(lambda a: a[1], after.params)) == {'head'}


def test_a_frozen_norm_uses_the_statistics_that_evaluation_uses():
  """The loss of a training step without augmentation is the loss of evaluation; not so if norms are trained."""
  for patterns, same in ((('head/*',), True), (('*',), False)):
    run, before = _frozen(patterns=patterns)
    drawn = lambda a: jax.random.normal(jax.random.key(a.size), a.shape)
    before = before._replace(params=before.params | {'head': jax.tree.map(drawn, before.params['head'])})
    (batch,) = run.data.train_batches(0, 0, 1)
    step = evaluate.make_eval_step(run.model, device_augment.normalizer(run.config.data))
    scored = jax.jit(step)(before.params, before.stats, run.place(batch), 0)
    loss = _after(run, before, steps=1)[1]['loss']
    assert np.isclose(loss, scored['loss'] / scored['weight'], rtol=1e-5) == same


def test_norms_with_a_trained_parameter_and_those_without():
  run, before = _frozen(patterns=('head/*', 'stages/*/convs/0/norm/bias', 'stem/conv/*'))
  after, _ = _after(run, before)
  assert _moved(before.stats, after.stats) == {f'stages/0/{part}/blocks/convs/0/norm' for part in ('first', 'rest')}
  moved = _moved(before.params, after.params)
  assert 'stem/conv' in moved and 'stem/norm' not in moved  # a convolution can be trained before a frozen norm
