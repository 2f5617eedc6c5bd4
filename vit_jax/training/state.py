"""The training state on the devices, and its conversion to the plain tree of a checkpoint."""

import functools
import itertools
import math
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.tree_util import DictKey

from vit_jax import objectives
from vit_jax.models import PureModel
from vit_jax.optimisation import optimizer, parametrisation, trainable
from vit_jax.optimisation.optimizer import OptimizerConfig
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import LogicalMesh
from vit_jax.training import guard
from vit_jax.training.config import RunConfig, program

_SUMS = ('weight', 'grad_norm', 'steps')  # beside those of the objective's values


class TrainState(NamedTuple):
  """Everything that a step reads and writes."""
  params: dict
  stats: dict  # batch norm's running statistics; empty for families without batch norm
  optimizer: Any  # optax's state
  ema: dict  # moving average of params; empty if it is off
  step: jax.Array  # int32: number of finished steps
  key_data: jax.Array  # data of the PRNG key that is derived from the seed
  hparams: dict  # learning_rate, weight_decay (float32), seed (uint32): traced, so that no value recompiles
  metrics: dict  # float32 sums since the last training row, and what `training.guard` keeps


def hparams(config: OptimizerConfig, seed: int) -> dict:
  """The hyperparameters of a run that are traced values."""
  return {'learning_rate': jnp.float32(config.learning_rate), 'weight_decay': jnp.float32(config.weight_decay),
          'seed': jnp.uint32(seed)}


def init(model: PureModel, config: RunConfig, hparams: dict) -> TrainState:
  """The state before the first step; pure, so that it can be jitted onto a mesh or packed over hparams.

  Raises:
    UserError: the model or the optimizer does not fit the parametrisation.
  """
  key = jax.random.key(hparams['seed'])
  params, stats = model.init(jax.random.fold_in(key, 0))
  factors = parametrisation.factors(config.parametrisation, config.optimizer.name, model)
  params = parametrisation.initial(params, factors)
  return TrainState(
      params=params, stats=stats, optimizer=optimizer.transformation(config.optimizer, model=model).init(
          trainable.select(params, trainable.trained(config.optimizer, model))),
      ema=jax.tree.map(jnp.copy, params) if config.optimizer.ema_decay else {}, step=jnp.int32(0),
      key_data=jax.random.key_data(jax.random.fold_in(key, 1)), hparams=hparams,
      metrics=_zero_sums((*(model.objective or objectives.of(config)).values, *_SUMS)) | guard.initial(config.train))


def _zero_sums(names: tuple[str, ...], shape: tuple[int, ...] = ()) -> dict:
  return {name: jnp.zeros(shape) for name in names}


def reset_metrics(state: TrainState) -> TrainState:
  """The state with its sums reset to zero, with the same sharding."""
  some, names = state.metrics['weight'], tuple(sorted(state.metrics.keys() - guard.LASTING))
  return state._replace(metrics=state.metrics | _zeros(names, some.shape, some.sharding)())


@functools.lru_cache(maxsize=4)
def _zeros(names, shape, sharding):
  """A program that makes all the zero sums at once, which takes a tenth of the time of making them one by one."""
  return jax.jit(functools.partial(_zero_sums, names, shape), out_shardings=sharding)


def shapes(model: PureModel, config: RunConfig) -> TrainState:
  """The state as ShapeDtypeStructs; nothing is computed. Raises the errors of `init`."""
  return jax.eval_shape(lambda: init(model, config, hparams(config.optimizer, config.seed)))


def placed(model: PureModel, shapes: TrainState, mesh: LogicalMesh) -> TrainState:
  """The sharding of each array of the state: the optimizer's moments and the EMA are sharded like their parameters.

  Optimizer arrays of other shapes (Adafactor's rows and columns) are small and replicated.

  Raises:
    UserError: an axis of the mesh does not divide a parameter's dimension.
  """
  whole = mesh_lib.sharding(mesh)
  params = mesh_lib.param_shardings(mesh, shapes.params, model.param_axes())
  sizes, places = (traverse_util.flatten_dict(tree) for tree in (shapes.params, params))

  def like_its_parameter(keys, moment):
    """The sharding of an array in optax's state, whose path ends in that of its parameter."""
    path = tuple(key.key for key in itertools.takewhile(lambda key: isinstance(key, DictKey), reversed(keys)))[::-1]
    return places[path] if path in places and sizes[path].shape == moment.shape else whole

  everywhere = lambda tree: jax.tree.map(lambda _: whole, tree)
  moments = jax.tree_util.tree_map_with_path(like_its_parameter, shapes.optimizer)
  return everywhere(shapes)._replace(params=params, optimizer=moments, ema=params if shapes.ema else {})


def abstract(model: PureModel, config: RunConfig, mesh: LogicalMesh) -> TrainState:
  """The state as ShapeDtypeStructs with shardings; nothing is computed. Raises the errors of `init` and `placed`."""
  arrays = shapes(model, config)
  place = lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
  return jax.tree.map(place, arrays, placed(model, arrays, mesh))


def size(model: PureModel, config: RunConfig, mesh: LogicalMesh) -> int:
  """Bytes of the whole state, which a checkpoint holds."""
  return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(abstract(model, config, mesh)))


def create(model: PureModel, config: RunConfig, mesh: LogicalMesh) -> TrainState:
  """The initial state, created with its sharding: no device ever holds the whole of a sharded parameter."""
  return _creation(model, program(config), mesh)(hparams(config.optimizer, config.seed))


@functools.lru_cache(maxsize=1)  # shared by runs that are trained together
def _creation(model, config, mesh):
  places, values = placed(model, shapes(model, config), mesh), hparams(config.optimizer, config.seed)
  # On a CPU, optimising code that runs only once would take most of the time.
  options = {'xla_backend_optimization_level': 0} if mesh.devices.flat[0].platform == 'cpu' else None
  return jax.jit(lambda h: init(model, config, h), out_shardings=places).lower(values).compile(options)


def to_plain(state: TrainState) -> dict:
  """The state as nested dicts of arrays without optax's classes, as a checkpoint holds it."""
  return state._asdict() | {'optimizer': flax.serialization.to_state_dict(state.optimizer)}


def from_plain(like: TrainState, tree: dict) -> TrainState:
  """The inverse of `to_plain`; `like` provides the classes of the optimizer's state, and counters that are missing."""
  optimizer = flax.serialization.from_state_dict(like.optimizer, tree['optimizer'])
  return TrainState(**tree | {'optimizer': optimizer, 'metrics': like.metrics | tree['metrics']})


def saved_by(record: dict, like: dict) -> dict:
  """`like`, a plain tree, without the counters that a checkpoint with this record lacks, as older versions saved it."""
  if 'arrays' not in record:
    return like
  saved = {path.split('/')[1] for path in record['arrays'] if path.startswith('metrics/')}
  return like | {'metrics': {name: value for name, value in like['metrics'].items() if name in saved}}
