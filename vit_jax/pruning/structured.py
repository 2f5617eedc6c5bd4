"""Structured pruning: the least important heads and MLP units are removed, which leaves a smaller dense model.

The importance of a unit is the change of the loss on removing it, to first order (Molchanov et al. 2019, "Importance
estimation for neural network pruning", eq. 8; Michel et al. 2019, "Are sixteen heads really better than one?", eq. 2).
With a gate z = 1 on the unit's output, it is dL/dz. The map that sums over the units (`out` or `down`) is linear in
them, so dL/dz is the sum of w dL/dw over the unit's rows of that map's kernel. Its square is averaged over batches:
near a minimum the mean of dL/dz over all examples is close to zero, so the square over batches of any size ranks units
as the square over single examples does.

Every layer loses the same number of units, so that the layers can still be scanned. The units of a parameter are its
logical axes `heads` and `mlp`. Parameters that share units are in one module: the queries, keys, values and output map
of an attention; the up and down maps of an MLP.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import models, objectives
from vit_jax.data import device_augment, pipeline
from vit_jax.errors import UserError
from vit_jax.models import PureModel
from vit_jax.optimisation import losses
from vit_jax.training.trained import Trained

FIELDS = {'heads': 'num_heads', 'mlp': 'mlp_dim'}  # logical axis -> the field of the model's config that counts it
_BATCH = 32

Path = tuple[Any, ...]


def prune(source: Trained, shares: dict[str, float],
          examples: int = 2048) -> tuple[Trained, dict[str, dict[Path, np.ndarray]]]:
  """Prunes a trained model.

  Args:
    source: the trained model, of family vit or deit.
    shares: {'heads' or 'mlp': the share of these units that is removed from each layer, in [0, 1)}.
    examples: the number of training pictures from which importance is estimated.

  Returns:
    The pruned model, with `num_heads`, `head_dim` and `mlp_dim` of its config set accordingly, and the `importance` of
    every unit of the source.

  Raises:
    UserError: the source is no run, is of another family, or a share is out of range or leaves no unit.
  """
  if source.config is None:
    raise UserError('pruning estimates importance on the training pictures: expected a run folder of vit_jax.main')
  config = source.config.model
  family = models.family(source.config.family)
  if family.pruned is None:
    raise UserError(f'family={source.config.family}: pruning supports only families {models.that_have("pruned")}')
  kept = {axis: _kept(axis, share, getattr(config, FIELDS[axis])) for axis, share in shares.items()}
  normalize = device_augment.normalizer(source.config.data)
  scores = importance(source.model, source.params, source.stats, _batches(source, examples), normalize)
  axes = source.model.param_axes()
  best = {module: np.sort(np.argsort(values, axis=-1)[..., -kept[unit]:], axis=-1)
          for unit in kept for module, values in scores[unit].items()}
  smaller = family.pruned(config, kept)
  model = PureModel(source.config.family, smaller, source.model.image_shape, source.model.num_classes,
                    objective=objectives.of(source.config))
  return dataclasses.replace(source, config=dataclasses.replace(source.config, model=smaller), model=model,
                             params=take(source.params, axes, best)), scores


def importance(model: PureModel, params: dict, stats: dict, batches: Iterable[dict],
               normalize: Callable[[jax.Array], jax.Array] = device_augment.normalize,
               ) -> dict[str, dict[Path, np.ndarray]]:
  """The importance of each unit: the mean of (dL/dz)^2 over batches, where L is the mean cross-entropy of a batch.

  Args:
    model: a vit or a deit.
    params, stats: its parameters and statistics.
    batches: dicts of image, uint8 [B, H, W, C], and label, int [B] or [B, C] of 0 and 1.
    normalize: scales the pictures as the model was trained with them.

  Returns:
    {'heads' or 'mlp': {path of the module: float32 [L, units], or [units] outside the stack}}.
  """
  axes = model.param_axes()

  @jax.jit
  def squared(params, batch):
    def loss(params):
      logits_BC, _, _ = model.apply(params, stats, normalize(batch['image']))
      if batch['label'].ndim > 1:
        loss_B = losses.per_example('sigmoid', logits_BC, losses.several_targets(batch['label'], 0.0))
      else:
        loss_B = losses.per_example('softmax', logits_BC, losses.targets(batch['label'], model.num_classes, 0.0))
      return jnp.mean(loss_B)

    out = {unit: {} for unit in FIELDS}
    for keys, slope in jax.tree_util.tree_leaves_with_path(jax.tree.map(jnp.multiply, params, jax.grad(loss)(params))):
      path = _path(keys)
      names = _at(axes, path)
      inputs = int(names[0] == 'layers')  # the first input axis of a map
      if path[-1] == 'kernel' and names[inputs] in FIELDS:  # it sums over units
        by_unit = slope.reshape(*slope.shape[:inputs + 1], -1).sum(-1)
        out[names[inputs]][path[:-2]] = jnp.square(by_unit)
    return out

  every = [jax.device_get(squared(params, {name: batch[name] for name in ('image', 'label')})) for batch in batches]
  return jax.tree.map(lambda *values: np.mean(values, axis=0), *every)


def take(params: dict, axes: dict, best: dict[Path, np.ndarray]) -> dict:
  """The parameters with only the units of `best`: {path of the module: indices int [L, n] or [n], ascending}."""

  def one(keys, value):
    path = _path(keys)
    names = _at(axes, path)
    module = path[:-2] if path[-1] in ('kernel', 'bias') else path[:-1]
    at = next((i for i, name in enumerate(names) if name in FIELDS), None)
    if at is None or module not in best:
      return value
    sizes = dict(zip([0, at][-best[module].ndim:], best[module].shape))
    index = best[module].reshape([sizes.get(i, 1) for i in range(value.ndim)])
    return jnp.take_along_axis(value, index, axis=at)

  return jax.tree_util.tree_map_with_path(one, params)


def _kept(axis, share, count):
  if not 0 <= share < 1:
    raise UserError(f'--{axis}={share}: the share that is removed from each layer must be in [0, 1)')
  kept = count - round(share * count)
  if not kept:
    raise UserError(f'--{axis}={share}: leaves none of {count}; the largest share that leaves one is '
                    f'{(count - 1) / count:.3g}')
  return kept


def _batches(source, examples):
  """Batches of training pictures, in the run's own order."""
  data = pipeline.open_data(dataclasses.replace(source.config.data, batch_size=_BATCH))
  return data.train_batches(source.config.seed, 0, max(1, min(examples, data.unique_examples) // _BATCH))


def _path(keys):
  return tuple(key.key for key in keys)


def _at(tree, path):
  for key in path:
    tree = tree[key]
  return tree
