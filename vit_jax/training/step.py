"""One training step: prepare, forward, loss, gradients, update. A pure function of (state, batch)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from vit_jax import objectives
from vit_jax.data import device_augment
from vit_jax.layers import stack
from vit_jax.models import PureModel
from vit_jax.objectives.objective import row_keys, weighed
from vit_jax.optimisation import layerwise, optimizer, parametrisation, schedule, trainable
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel.mesh import LogicalMesh
from vit_jax.training import guard
from vit_jax.training import state as state_lib
from vit_jax.training.config import RunConfig
from vit_jax.training.state import TrainState
from vit_jax.transfer.teacher import Teacher


def make_train_step(model: PureModel, config: RunConfig, steps: int | schedule.Length, augment: Callable,
                    teacher: Teacher | None = None, inspect: Callable | None = None) -> Callable:
  """Returns `(state, batch, teacher's arrays) -> (state, metrics)`, to be jitted; `guard.reported` names the metrics.

  Args:
    model: the model as pure functions.
    config: the run.
    steps: the run's length, for the schedule; a `Length` may be traced.
    augment: (key, images uint8 [B, H, W, C], targets [B, ..] or None, weights [B]) -> (images float32, targets).
    teacher: the teacher of distillation; without one, the third argument is left out.
    inspect: (gradients, step) -> (gradients for the optimizer, more metrics).

  A batch is a dict of the objective's `inputs` and weight [B] float32; rows of weight 0 do not count. All randomness is
  a function of (seed, step, global row), independent of sharding and micro-batches.
  """
  opt, objective = config.optimizer, model.objective or objectives.of(config)
  trained = trainable.trained(opt, model)
  resting = trainable.resting(trained, model)
  forward_of = _forward_of(model.resting(resting), objective, trained)
  loss_of = _loss_of(forward_of, objective)
  factors = trainable.select(parametrisation.factors(config.parametrisation, opt.name, model), trained)
  rates = trainable.select(layerwise.rates(opt, model), trained)
  decays = trainable.select(trainable.scaled(opt, 'decays', model), trained)
  inspect = inspect or (lambda grads, step: (grads, {}))

  def train_step(state: TrainState, batch: dict, taught: dict | None = None) -> tuple[TrainState, dict[str, jax.Array]]:
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key_data), state.step)
    rows = jnp.arange(len(batch['weight']))
    batch = objective.prepare(model, batch, functools.partial(augment, jax.random.fold_in(key, 0)),
                              row_keys(jax.random.fold_in(key, 2), rows))
    if teacher:
      batch |= {'teacher': teacher(taught, batch['image'])}
    inputs = (batch, row_keys(jax.random.fold_in(key, 1), rows))
    micro, unrolled = config.system.microbatches, _unrolled(model, config.system.execution.scan)
    if objective.whole_batch and micro > 1:
      (loss, (batch_stats, sums)), grads = _in_passes(forward_of, objective, state, inputs, micro, unrolled)
    else:
      (loss, (batch_stats, sums)), grads = _accumulate(loss_of, state.params, state.stats, inputs,
                                                       objective.values[1:], micro, unrolled)
    weight = jnp.maximum(jnp.sum(batch['weight']), 1e-9)
    grads, inspected = inspect(jax.tree.map(lambda g: g / weight, grads), state.step)
    scale = schedule.multiplier(config.schedule, steps, state.step)
    moved, opt_state = optimizer.step(
        opt, trainable.select(grads, trained), state.optimizer, trainable.select(state.params, trained),
        scale * state.hparams['learning_rate'], state.hparams['weight_decay'], factors, model, rates, decays)
    params = trainable.merged(state.params, moved, trained)
    ema = optimizer.moving_average(state.ema, params, opt.ema_decay, state.step, opt.ema_warmup) if (
        opt.ema_decay) else state.ema
    stats = trainable.moving(state.stats, optimizer.average_stats(opt, state.stats, batch_stats, state.step), resting)
    metrics = {'loss': loss / weight, 'grad_norm': optax.tree.norm(grads)}
    new = {objective.values[0]: loss, **sums, 'weight': weight, 'grad_norm': metrics['grad_norm'],
           'steps': jnp.float32(1)}
    sums = state.metrics | jax.tree.map(jnp.add, {name: state.metrics[name] for name in new}, new)
    after = state._replace(params=params, stats=stats, optimizer=opt_state, ema=ema, metrics=sums)
    after, metrics = guard.judged(config.train, state, after, metrics)
    return after._replace(step=state.step + 1), metrics | inspected

  return train_step


def _forward_of(model, objective, trained):
  """(parameters, statistics, batch, keys) -> (the objective's outputs, the batch's statistics)."""
  return lambda params, stats, batch, keys_B: model.call(
      trainable.frozen(params, trained), stats, lambda module: objective.forward(module, batch, keys_B))


def _loss_of(forward_of, objective):
  """(parameters, statistics, batch, keys) -> (sum of the loss, (the batch's statistics, sums of the other values))."""

  def loss_of(params, stats, batch, keys_B):
    outputs, batch_stats = forward_of(params, stats, batch, keys_B)
    loss, sums = _summed(objective, outputs, batch)
    return loss, (batch_stats, sums)

  return loss_of


def _summed(objective, outputs, batch):
  """(sum of the loss, sums of the other values) over a batch."""
  return _sums_of(objective, objective.loss(outputs, batch), batch)


def _sums_of(objective, values, batch):
  sums = {name: weighed(values[name], batch['weight']) for name in objective.values}
  return sums.pop(objective.values[0]), sums


def make_step(model: PureModel, config: RunConfig, steps: int | schedule.Length,
              teacher: Teacher | None = None, inspect: Callable | None = None) -> Callable:
  """`make_train_step` with the augmentation of the run's config."""
  augment = device_augment.augment(config.data.augment, device_augment.normalizer(config.data))
  return make_train_step(model, config, steps, augment, teacher, inspect)


def trace(model: PureModel, config: RunConfig, steps: int, mesh: LogicalMesh,
          teacher: Teacher | None = None, inspect: Callable | None = None) -> jax.stages.Traced:
  """Traces the step on a mesh from shapes alone. The loop compiles it, and `plan` compiles it for absent devices.

  The state is donated, unless `inspect` is given for a step that is run twice, and keeps its sharding.
  """
  rows = mesh_lib.sharding(mesh, 'batch')
  array = lambda dtype, *shape: jax.ShapeDtypeStruct((config.data.batch_size, *shape), dtype, sharding=rows)
  inputs = (model.objective or objectives.of(config)).inputs(model.image_shape)
  batch = {name: array(one.dtype, *one.shape) for name, one in inputs.items()} | {'weight': array(jnp.float32)}
  train_state = state_lib.abstract(model, config, mesh)
  step = make_step(model, config, steps, teacher, inspect)
  places, everywhere = jax.tree.map(lambda a: a.sharding, train_state), mesh_lib.sharding(mesh)
  jitted = jax.jit(mesh_lib.traced_on(mesh, step), donate_argnums=() if inspect else 0,
                   out_shardings=(places, everywhere))
  return jitted.trace(train_state, batch, *([teacher.shapes(mesh)] if teacher else []))


def _unrolled(model, scan):
  """A tree that says of each parameter whether it stacks layers that run unrolled; to be called while tracing."""
  def unrolled(shape, axes):
    return axes[:1] == ('layers',) and shape.shape[0] > 1 and not stack.scanned(
        scan, shape.shape[0], mesh_lib.platform())

  return jax.tree.map(unrolled, model.param_shapes(), model.param_axes())


def _accumulate(loss_of, params, stats, inputs, other_values, microbatches, unrolled):
  """((loss sum, (mean batch stats, other sums)), gradient sum) over equal slices of the batch, one after another.

  Parameters that `unrolled` marks are split into layers once, not in each slice. The gradients of their layers are
  summed separately and stacked at the end.
  """
  if microbatches <= 1:
    return jax.value_and_grad(loss_of, has_aux=True)(params, stats, *inputs)

  apart = jax.tree.map(lambda p, layers: list(jnp.unstack(p)) if layers else p, params, unrolled)
  whole = lambda apart: jax.tree.map(lambda layers, p: jnp.stack(p) if layers else p, unrolled, apart)
  value_and_grad = jax.value_and_grad(lambda apart, *rest: loss_of(whole(apart), *rest), has_aux=True)

  def slice_step(carry, inputs):
    return jax.tree.map(jnp.add, carry, value_and_grad(apart, stats, *inputs)), None

  zero, zeros = jnp.float32(0), lambda tree: jax.tree.map(jnp.zeros_like, tree)
  start = ((zero, (zeros(stats), {name: zero for name in other_values})), zeros(apart))
  (loss, (batch_stats, sums)), grads = jax.lax.scan(slice_step, start, _dealt(inputs, microbatches))[0]
  return (loss, (jax.tree.map(lambda s: s / microbatches, batch_stats), sums)), whole(grads)


def _in_passes(forward_of, objective, state, inputs, microbatches, unrolled):
  """What `_accumulate` returns, for a loss of the whole batch (Gao et al. 2021, "GradCache", sec. 3).

  The first pass computes the outputs that the loss of a slice needs of all slices, and keeps nothing else. The last
  takes the gradient of the loss by these back through each slice. Where they are all outputs, that gradient is computed
  at once. Else a pass between takes the loss of each slice among them, and its gradient by all that is left.
  """
  (params, stats, batch), names = (state.params, state.stats, inputs[0]), objective.of_all()
  ahead = lambda inputs: _some(forward_of(params, stats, *inputs)[0], names)
  of_all = jax.lax.map(ahead, _dealt(inputs, microbatches))
  of_all = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), of_all)

  def among(params_and_all, stats, some, keys_B):
    outputs, batch_stats = forward_of(params_and_all[0], stats, some, keys_B)
    loss, sums = _sums_of(objective, objective.loss_among(outputs, some, params_and_all[1], batch), some)
    return loss, (batch_stats, sums)

  def along_slopes(params, stats, batch, keys_B, slopes):
    outputs, batch_stats = forward_of(params, stats, batch, keys_B)
    outputs = _some(outputs, names)
    return sum(jnp.sum(x * slope) for x, slope in zip(*map(jax.tree.leaves, (outputs, slopes)), strict=True)), (
        batch_stats, {})

  if names is None:
    (loss, sums), slopes = jax.value_and_grad(lambda outputs: _summed(objective, outputs, batch), has_aux=True)(of_all)
    (_, (stats, _)), grads = _accumulate(along_slopes, params, stats, (*inputs, slopes), (), microbatches, unrolled)
    return (loss, (stats, sums)), grads
  out, (grads, slopes) = _accumulate(among, (params, of_all), stats, inputs, objective.values[1:], microbatches,
                                     (unrolled, jax.tree.map(lambda _: False, of_all)))
  more = _accumulate(along_slopes, params, stats, (*inputs, slopes), (), microbatches, unrolled)[1]
  return out, jax.tree.map(jnp.add, grads, more)


def _some(outputs, names):
  return outputs if names is None else {name: outputs[name] for name in names}


def _dealt(inputs, count):
  """Arrays [B, ..] as [count, B / count, ..]: rows are dealt out like cards, so that each slice is spread over all
  devices, as the whole batch is."""
  return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 1, 0), inputs)
