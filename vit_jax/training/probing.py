"""Probes as metrics: what a model's features are worth for telling the classes, measured while it trains.

At each evaluation, k nearest neighbours and a linear probe learn from frozen features of a fixed, class-balanced part
of the training examples, and are scored on the evaluated split (`transfer.probe`). Runs of all objectives can so be
compared by one number. The model does not learn from it.
"""

import contextlib
import functools
from typing import Any

import jax
import numpy as np

from vit_jax.data import device_augment
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import evaluate
from vit_jax.training.run import Run
from vit_jax.transfer.probe import Features, linear, neighbours


def scores(run: Run, params: dict, stats: dict, split: str) -> dict[str, float]:
  """The columns of `evaluate.PROBE` for a split, from the features of `evaluate.probe` training examples.

  Raises:
    UserError: pictures of only one class could be read.
  """
  examples = run.data.balanced('train', run.config.evaluate.probe)
  train, there = (_features(run, name, params, stats) for name in (examples, split))
  classes = run.data.num_classes
  kernel, bias, _, _ = linear(train, None, classes)
  right = {'probe': (there.features @ kernel + bias).argmax(1) == there.labels,
           'knn': neighbours(train, there.features, classes) == there.labels}
  accuracy = {name: float(correct.mean()) for name, correct in right.items()}
  return {name: accuracy[kind] if what == 'accuracy' else 1 - accuracy[kind]
          for name in evaluate.PROBE for kind, what in [name.split('/')]}


def _features(run, split, params, stats) -> Features:
  """The features of the examples of a split that can be read."""
  forward, rows = _forward(run.model, run.config.data, run.mesh), []
  with contextlib.closing(run.eval_batches(split, lambda errors: None)) as batches:
    for batch in batches:
      rows.append(jax.device_get((forward(params, stats, batch['image']), batch['weight'])))
  features_ND, weights = (np.concatenate(parts) for parts in zip(*rows))
  count = run.data.size(split)
  readable = weights[:count] > 0
  if not readable.any():
    raise UserError(f'evaluate.probe: none of the {count:,} pictures of {split} could be read')
  return Features(features_ND[:count][readable], run.data.labels(split)[readable])


@functools.lru_cache(maxsize=1)  # runs that are trained together share it
def _forward(model, data, mesh):
  normalize, objective = device_augment.normalizer(data), model.objective

  def forward(params, stats, images) -> Any:
    return model.call(params, stats, lambda module: objective.features(module, normalize(images)))[0].astype('float32')

  return jax.jit(mesh_lib.traced_on(mesh, forward), out_shardings=mesh_lib.sharding(mesh))
