"""What holds for every model family (`vit_jax.models.family`), as checks that take a case.

A family of your own passes them all: `for check in CHECKS: check(Case('mine', Config(..), (18, 23, 3)))`. Its config is
tiny, has noise where the family has some, and mostly two layers or more. Each check compiles one or two programs.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import models
from vit_jax.cost import flops
from vit_jax.errors import UserError
from vit_jax.layers.stack import Execution
from vit_jax.models import PureModel
from vit_jax.parallel import mesh as mesh_lib

BATCH, CLASSES = 4, 5


@dataclasses.dataclass(frozen=True)
class Case:
  """A tiny model: `family` is its key in `models.FAMILIES`.

  `idle`: the end of the path of a parameter that changes nothing, of which there should be none.
  """
  family: str
  config: Any
  image_shape: tuple[int, int, int]
  idle: tuple[str, ...] | None = None

  @functools.cache  # noqa: B019 (a case lives as long as the tests)
  def model(self, execution: Execution = Execution()) -> PureModel:
    return PureModel(self.family, self.config, self.image_shape, CLASSES, execution)

  @property
  def images(self) -> jax.Array:
    return jax.random.normal(jax.random.key(9), (BATCH, *self.image_shape))


def random(shapes, seed=1):
  """Every leaf random: a zero head would hide the backbone, a zero norm a branch. Variances are positive."""
  rng = np.random.default_rng(seed)
  value = lambda path, leaf: (rng.uniform(0.5, 2, leaf.shape) if path[-1].key == 'var'
                              else 0.3 * rng.standard_normal(leaf.shape)).astype(np.float32)
  return jax.tree_util.tree_map_with_path(value, shapes)


def inputs(case: Case) -> tuple[dict, dict]:
  """(params, stats) at random."""
  return random(case.model().param_shapes()), random(case.model().stats_shapes())


def declares_its_parameters(case: Case) -> None:
  """Float32, an axis name a dimension, a role, at least one input and one output; the config and sizes are usable."""
  family, model = models.family(case.family), case.model()
  assert dataclasses.is_dataclass(family.config) and hash(family.config()) == hash(family.config())
  for fields in family.sizes.values():
    family.config(**fields)
  shapes, axes, roles = model.param_shapes(), model.param_axes(), model.param_roles()
  for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
    assert leaf.dtype == jnp.float32, jax.tree_util.keystr(path)
  is_axes = lambda x: isinstance(x, tuple)
  jax.tree.map(lambda leaf, names: np.testing.assert_equal(len(names), len(leaf.shape)), shapes, axes)
  assert len(jax.tree.leaves(axes, is_leaf=is_axes)) == len(jax.tree.leaves(shapes)) == len(jax.tree.leaves(roles))
  assert set(jax.tree.leaves(roles)) == {'input', 'hidden', 'output'}
  stacked = {names[0] for names in jax.tree.leaves(axes, is_leaf=is_axes) if 'layers' in names}
  assert stacked <= {'layers'}, 'layers are stacked on the first axis'
  assert bool(model.stats_shapes()) == family.batch_norm


def costs_something(case: Case) -> None:
  """FLOPs are counted, training costs more than twice a forward pass, and embeddings are told apart."""
  forward, train = flops.per_example(case.model())
  total, non_embedding = flops.params(case.model())
  assert 0 < 2 * forward < train and 0 < non_embedding < total


def starts_with_equal_classes(case: Case) -> None:
  """Parameters are drawn from the key alone, and logits are zero."""
  model = case.model()
  init = jax.jit(lambda key: model.init(key))
  (params, stats), again, other = (init(jax.random.key(seed, impl='rbg')) for seed in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, (params, stats), again)
  assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other[0]), strict=True))
  assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, model.param_shapes())
  pre_logits = jax.eval_shape(model.apply, params, stats, case.images)[1]['pre_logits']
  assert pre_logits.shape == (BATCH, model.param_shapes()['head']['kernel'].shape[0])
  assert not np.any(params['head']['kernel']) and not np.any(params['head']['bias'])


def evaluates_each_example_alone(case: Case) -> None:
  """Finite float32 logits, the same each time, whatever else is in the batch; the statistics stay; all captures."""
  model, (params, stats) = case.model(), inputs(case)
  captures = models.family(case.family).captures
  if getattr(case.config, 'attention', 'full') != 'full':
    captures = tuple(name for name in captures if name != 'attention')
  run = jax.jit(lambda images: model.apply(params, stats, images, capture=captures))
  (logits, captured, after), again = run(case.images), run(case.images)[0]
  assert logits.shape == (BATCH, CLASSES) and logits.dtype == jnp.float32 and np.isfinite(logits).all()
  np.testing.assert_array_equal(logits, again)
  jax.tree.map(np.testing.assert_array_equal, stats, after)
  order = np.array([2, 0, 1, 1])
  np.testing.assert_allclose(run(case.images[order])[0], logits[order], rtol=1e-4, atol=1e-4)
  assert set(captures) | {'pre_logits'} <= set(captured) and 'features' in captures
  for name in captures:
    parts = captured[name] if isinstance(captured[name], list) else list(captured[name])
    assert parts and all(np.isfinite(part).all() for part in parts), name
  features = captured['features']
  assert all(stage.shape[0] == BATCH for stage in features) if isinstance(features, list) else (
      features.shape[1] == BATCH)


@functools.cache
def step(case: Case, execution: Execution = Execution()) -> tuple:
  """(loss, (logits, statistics), gradients) in training, from random parameters."""
  return _compiled(case, execution)(case.images, _keys())


@functools.cache
def _compiled(case, execution):
  model, state = case.model(execution), inputs(case)
  weights = jax.random.normal(jax.random.key(2), (BATCH, CLASSES))

  def loss(params, stats, images, keys):
    logits, _, stats = model.apply(params, stats, images, keys)
    return jnp.sum(logits * weights), (logits, stats)

  program = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(*state, case.images, _keys()).compile(
      compiler_options={'xla_backend_optimization_level': 0})

  def run(images, keys):
    (value, aux), grads = jax.device_get(program(*state, images, keys))
    return value, aux, grads
  return run


def _keys():
  return jax.random.split(jax.random.key(3), BATCH)


def trains_every_parameter(case: Case) -> None:
  """Each leaf's gradient is finite and not zero, in each layer of a stack."""
  axes = case.model().param_axes()
  for path, leaf in jax.tree_util.tree_leaves_with_path(step(case)[2]):
    name, names = jax.tree_util.keystr(path), functools.reduce(lambda tree, key: tree[key.key], path, axes)
    if case.idle and tuple(key.key for key in path)[-len(case.idle):] == case.idle:
      np.testing.assert_allclose(leaf, 0, atol=1e-5, err_msg=name)
      continue
    assert np.isfinite(leaf).all() and np.abs(leaf).max() > 1e-6, name
    if names[0] == 'layers':
      assert (np.abs(leaf.reshape(len(leaf), -1)).max(1) > 1e-6).all(), name


def draws_noise_by_example(case: Case) -> None:
  """Examples keep their noise where they change places; other keys are other noise, where there is noise at all."""
  run, order = _compiled(case, Execution()), np.array([3, 1, 0, 2])
  logits, other = step(case)[1][0], run(case.images, _keys()[::-1])[1][0]
  np.testing.assert_allclose(run(case.images[order], _keys()[order])[1][0], logits[order], rtol=1e-3, atol=1e-3)
  noisy = any(getattr(case.config, name, 0) for name in ('dropout', 'drop_path'))
  assert (np.abs(other - logits).max() > 1e-3) == noisy


def runs_unrolled_and_recomputed_alike(case: Case) -> None:
  """The loss, logits, statistics and gradients."""
  scale = lambda x: 1e-4 * max(np.abs(x).max(), 1)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=scale(x)),
               step(case), step(case, Execution(scan=False, remat='full')))


def computes_the_same_on_a_mesh(case: Case) -> None:
  """The logits of one device, on four."""
  model, (params, stats) = case.model(), inputs(case)
  axes = jax.tree.leaves(model.param_axes(), is_leaf=lambda x: isinstance(x, tuple))
  sizes = (1, 2, 2) if {'heads', 'mlp'} & {name for names in axes for name in names} else (2, 2, 1)
  mesh = mesh_lib.make_mesh(mesh_lib.MeshConfig(*sizes), jax.devices()[:4])
  places = mesh_lib.param_shardings(mesh, model.param_shapes(), model.param_axes())
  split = jax.device_put(params, places), jax.device_put(case.images, mesh_lib.sharding(mesh, 'batch'))
  forward = lambda params, images: model.apply(params, stats, images)[0]
  got, expected = jax.jit(mesh_lib.traced_on(mesh, forward))(*split), jax.jit(forward)(params, case.images)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def takes_parameters_of_another_size(case: Case) -> None:
  """`resized` gives the shapes that a model of that size has, and the same size is no change."""
  family, (params, _) = models.family(case.family), inputs(case)
  same = family.resized(params, case.config, case.image_shape, case.image_shape)
  jax.tree.map(np.testing.assert_array_equal, same, params)
  height, width, channels = case.image_shape
  larger = (2 * height, 2 * width, channels)
  try:
    params = family.resized(params, case.config, case.image_shape, larger)
  except UserError as error:
    assert str(2 * height) in str(error), 'a refusal names the size'
    return
  wanted = PureModel(case.family, case.config, larger, CLASSES).param_shapes()
  assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, wanted)


CHECKS = (declares_its_parameters, costs_something, evaluates_each_example_alone, trains_every_parameter,
          draws_noise_by_example, runs_unrolled_and_recomputed_alike, takes_parameters_of_another_size,
          starts_with_equal_classes, computes_the_same_on_a_mesh)
