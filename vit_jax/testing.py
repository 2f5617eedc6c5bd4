"""What holds for every objective (`vit_jax.objectives.objective`), as checks for your own tests:

  from vit_jax import testing

  @pytest.mark.parametrize('check', testing.OBJECTIVE_CHECKS)
  def test_my_objective(check, tmp_path):
    check(recipe(), tmp_path)

A recipe is a ConfigDict of a tiny run: a batch of 8 on the digits, say, of a model of two layers. The checks change its
length and its optimizer. Each compiles one to three programs.
"""

import contextlib
import copy
import dataclasses
import io
import math
import pathlib
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from vit_jax import goodput, objectives
from vit_jax.console import Console
from vit_jax.data import device_augment, pictures, sources
from vit_jax.data.config import DataConfig
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.survival.stop import Stopped
from vit_jax.training import config as run_config
from vit_jax.training import evaluate, loop, state
from vit_jax.training import run as run_lib
from vit_jax.training.display import Display
from vit_jax.training.run import Run
from vit_jax.training.step import make_step

Recipe = ml_collections.ConfigDict
_MESHES = ((2, 2, 2), (2, 2, 1), (2, 1, 1), (1, 1, 1))  # the largest that there are devices for is taken


def declares_what_it_reports(recipe: Recipe, tmp_path: pathlib.Path) -> None:
  """'loss' comes first, columns are those of `metrics`, inputs have their shapes, and equal options are equal."""
  del tmp_path
  run = _run(recipe)
  objective, again = run.objective, objectives.of(run_config.cast(recipe)).for_data(run.data)
  assert objective == again and hash(objective) == hash(again)
  assert next(iter(objective.metrics)) == 'loss' == objective.values[0]
  assert list(objective.report({name: 0.5 for name in objective.values})) == list(objective.metrics)
  batch = next(run.data.train_batches(0, 0, 1))
  for name, entry in objective.inputs(run.model.image_shape).items():
    assert batch[name].shape[1:] == entry.shape and batch[name].dtype == entry.dtype, name
  assert 0 < 2 * run.flops_per_example_forward < run.flops_per_example_train


def trains_every_parameter(recipe: Recipe, tmp_path: pathlib.Path) -> None:
  """Each gradient is finite and not zero."""
  del tmp_path
  metrics, grads = _gradients(_run(recipe))
  assert np.isfinite(metrics['loss'])
  for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 1e-7, jax.tree_util.keystr(path)


def accumulates_to_the_whole_batch(recipe: Recipe, tmp_path: pathlib.Path) -> None:
  """Micro-batches change neither the metrics nor the gradients."""
  del tmp_path
  _assert_alike(_gradients(_run(recipe)), _gradients(_run(recipe, **{'system.microbatches': 2})))


def computes_the_same_on_a_mesh(recipe: Recipe, tmp_path: pathlib.Path) -> None:
  """One device and as many as there are, up to eight, give the same metrics and gradients."""
  del tmp_path
  sizes, run = next(sizes for sizes in _MESHES if math.prod(sizes) <= len(jax.devices())), _run(recipe)
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(*sizes), jax.devices()[:math.prod(sizes)])
  _assert_alike(_gradients(run), _gradients(dataclasses.replace(run, mesh=mesh)))


def scores_each_example_by_itself(recipe: Recipe, tmp_path: pathlib.Path) -> None:
  """The metrics of a split do not depend on the size of the batches."""
  del tmp_path
  run = _run(recipe)
  params, stats = _randomised(run).params, state.create(run.model, run.config, run.mesh).stats
  step = jax.jit(evaluate.make_eval_step(run.model, device_augment.normalizer(run.config.data)))
  some = {name: array[:21] for name, array in run.data.arrays('test').items()}

  def scores(size):
    batches = []
    for start in range(0, 21, size):
      rows = {name: array[start:start + size] for name, array in some.items()}
      real = len(rows['image'])
      padded = {name: np.concatenate([a, np.zeros((size - real, *a.shape[1:]), a.dtype)]) for name, a in rows.items()}
      batches.append(padded | {'weight': (np.arange(size) < real).astype(np.float32)})
    return evaluate.evaluate(step, run.objective, params, stats, batches)

  for name, value in scores(8).items():
    np.testing.assert_allclose(value, scores(21)[name], rtol=1e-5, err_msg=name)


def resumes_as_if_undisturbed(recipe: Recipe, tmp_path: pathlib.Path) -> None:
  """A run that is stopped after two of four steps leaves the same log as one that is not, byte for byte."""
  recipe = copy.deepcopy(recipe)
  recipe.train.steps, recipe.train.epochs, recipe.evaluate.every, recipe.system.log_every = 4, 0, 2, 1
  recipe.schedule.warmup_steps, recipe.system.steps_per_call = 0, 1
  run, quiet = _run(recipe), lambda: Display(Console(file=io.StringIO()))
  loop.train(run, tmp_path / 'undisturbed', quiet())
  with contextlib.ExitStack() as stack, contextlib.suppress(Stopped):
    stop = _AfterCalls(2)
    stopped, train_state = loop.begin(stack, run, tmp_path / 'stopped', quiet(), stop, goodput.Clock())
    stopped.to_end(train_state)
    raise AssertionError('it was not stopped')
  loop.train(run, tmp_path / 'stopped', quiet())
  logs = [(tmp_path / name / 'metrics.jsonl').read_bytes() for name in ('undisturbed', 'stopped')]
  assert logs[0] == logs[1] and logs[0].count(b'"train"') == 4


def keeps_the_contract_of_a_source(source: str) -> None:
  """What holds of every source of data (`vit_jax.data.sources.Source`), of one of yours: 'package.module:NAME'."""
  names = None
  for split, opened in sources.open_sources(DataConfig(source=source)).items():
    names = opened.class_names if names is None else names
    assert opened.class_names == names and len(opened) > 0, split
    shape = (len(opened), len(names)) if opened.several_labels else (len(opened),)
    assert opened.labels.shape == shape and opened.labels.dtype == (np.uint8 if opened.several_labels else np.int32)
    assert opened.labels.min() >= 0 and opened.labels.max() < (2 if opened.several_labels else max(len(names), 1))
    assert opened.captions is None or len(opened.captions) == len(opened)
    for i in sorted({0, len(opened) // 2, len(opened) - 1}):
      record = opened.read(i)
      height, width, channels = pictures.decode(record, opened.channels).shape
      assert channels == opened.channels and opened.image_size in (None, (height, width))
      again = pickle.loads(pickle.dumps(opened)).read(i)  # as workers do
      assert np.array_equal(np.asarray(again), np.asarray(record)), f'{split}: picture {i} changes'
    assert len({opened.key(i) for i in range(min(len(opened), 100))}) == min(len(opened), 100)
    if opened.images is not None:
      assert opened.images.dtype == np.uint8 and np.array_equal(opened.images[0], opened.read(0))


OBJECTIVE_CHECKS: tuple[Callable[[Recipe, pathlib.Path], None], ...] = (
    declares_what_it_reports, trains_every_parameter, accumulates_to_the_whole_batch, computes_the_same_on_a_mesh,
    scores_each_example_by_itself, resumes_as_if_undisturbed)


@dataclasses.dataclass
class _AfterCalls:
  """A `survival.stop.Stop` that asks to stop when it has been asked so many times."""
  calls: int
  by_hand: bool = False

  def ask(self) -> None:
    self.calls = 0

  def stop_requested(self) -> bool:
    self.calls -= 1
    return self.calls < 0


def _run(recipe, **changes) -> Run:
  """The run of a recipe on one device."""
  recipe = copy.deepcopy(recipe)
  recipe.update_from_flattened_dict(changes)
  recipe.data.batch_size = math.lcm(recipe.data.batch_size, 2 * len(jax.devices()))  # divides by devices and slices
  run = run_lib.prepare(run_config.cast(recipe))
  return dataclasses.replace(run, mesh=mesh_lib.make_mesh(mesh_lib.MeshConfig(1, 1, 1), jax.devices()[:1]))


def _randomised(run) -> state.TrainState:
  """The initial state with random parameters: a head of zeros would hide the backbone."""
  train_state = state.create(run.model, run.config, run.mesh)
  rng = np.random.default_rng(7)
  random = lambda leaf: jax.device_put(0.2 * rng.standard_normal(leaf.shape).astype(np.float32), leaf.sharding)
  return train_state._replace(params=jax.tree.map(random, train_state.params))


def _gradients(run) -> tuple[dict[str, Any], dict]:
  """(metrics, gradients) of one step from random parameters, on the host."""
  inspect = lambda grads, step: (grads, {'gradients': grads})
  step = jax.jit(mesh_lib.traced_on(run.mesh, make_step(run.model, run.resolved, run.steps, inspect=inspect)))
  batch = run.place(next(run.data.train_batches(0, 0, 1)))
  metrics = jax.device_get(step(_randomised(run), batch)[1])
  return metrics, metrics.pop('gradients')


def _assert_alike(first, second):
  for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(second), strict=True):
    scale = max(float(np.abs(x).max()), float(jnp.finfo(jnp.float32).tiny))
    np.testing.assert_allclose(x, y, rtol=0, atol=1e-4 * scale, err_msg=jax.tree_util.keystr(path))
