"""The temperature of a run: one number, fitted to `val` after training, by which its logits are divided in use.

No parameter and no row of metrics.jsonl changes: there the loss stays that of the logits as they are.
"""

import contextlib
import functools
from typing import Any

import jax
import numpy as np

from vit_jax.data import device_augment
from vit_jax.objectives import calibration
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training.run import Run


def wanted(run: Run) -> bool:
  """Whether a run's probabilities are calibrated: `val` has enough pictures, each with one label."""
  least = run.config.evaluate.calibrate
  return bool(least) and run.data.size('val') >= least and run.objective.predicts_classes and not (
      run.data.several_labels)


def of_run(run: Run, params: dict, stats: dict) -> dict[str, Any]:
  """What `of_logits` finds from the logits of these parameters."""
  return of_logits(*(_logits(run, split, params, stats) for split in ('val', 'test')))


def of_logits(val: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
  """The temperature that suits `val`, and what it does to `test`.

  Args:
    val, test: (logits [N, C], labels [N]) of the pictures that can be read.

  Returns:
    {temperature, examples: how many it was fitted to, test: {before, after}}, the latter as `calibration.gauge` says;
    without test where that is empty. {} if no picture of `val` can be read.
  """
  if not len(val[1]):
    return {}
  fitted = calibration.temperature(*val)
  out = {'temperature': fitted, 'examples': len(val[1])}
  if len(test[1]):
    out['test'] = {'before': calibration.gauge(*test), 'after': calibration.gauge(*test, fitted)}
  return out


def _logits(run, split, params, stats):
  """(logits [N, C], labels [N]) of the examples of a split that can be read."""
  count = run.data.size(split)
  if not count:
    return np.zeros((0, run.data.num_classes), np.float32), np.zeros(0, int)
  forward, rows = _forward(run.model, run.config.data, run.mesh), []
  with contextlib.closing(run.eval_batches(split, lambda errors: None)) as batches:
    for batch in batches:
      rows.append(jax.device_get((forward(params, stats, batch['image']), batch['weight'])))
  logits_NC, weights = (np.concatenate(parts)[:count] for parts in zip(*rows))
  return logits_NC[weights > 0], np.asarray(run.data.labels(split))[weights > 0]


@functools.lru_cache(maxsize=1)  # runs that are trained together share it
def _forward(model, data, mesh):
  normalize = device_augment.normalizer(data)
  forward = lambda params, stats, images: model.apply(params, stats, normalize(images))[0].astype('float32')
  return jax.jit(mesh_lib.traced_on(mesh, forward), out_shardings=mesh_lib.sharding(mesh))
