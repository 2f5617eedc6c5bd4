"""Steps that change nothing because their loss, gradient or update cannot be right; decided on the devices.

What the decision depends on is part of the state (`TrainState.metrics`), so a resumed run decides as an undisturbed one
does, and nothing waits for the host.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.survival import health
from vit_jax.survival.health import HealthConfig

LASTING = {'in_a_row', 'usual'}  # what lasts as long as the run; the other sums start anew after a training row
WATCHED = ('loss', 'grad_norm')


def active(config: HealthConfig) -> bool:
  """Whether steps are judged on the devices; if not, the state and the step are those of a run without this module."""
  return config.on_nonfinite == 'skip' or config.on_spike != 'note'


def reported(config: HealthConfig) -> tuple[str, ...]:
  """The names of the float32 scalars that a step reports."""
  return (*WATCHED, *(('verdict', 'in_a_row', 'usual') if active(config) else ()))


def initial(config: HealthConfig) -> dict:
  """What the state holds beside its sums: counters of skipped steps, and running means and deviations."""
  zeros = lambda *names: {name: jnp.zeros(()) for name in names}
  counters = zeros('skipped', 'in_a_row') if active(config) else {}
  averages = {name: zeros('count', 'mean', 'variance') for name in WATCHED}
  return counters | ({'usual': averages} if config.on_spike != 'note' else {})


def judged(config: HealthConfig, before: Any, after: Any, metrics: dict) -> tuple[Any, dict]:
  """(`after`, or `before` with its counters moved on where the step must change nothing; the metrics and the verdict).

  Where the config asks for nothing of the kind, `after` and the metrics as they are.

  Args:
    config: what to do about such steps.
    before: the TrainState before the step.
    after: the TrainState after it, with the same step count as `before`.
    metrics: loss and gradient norm of the step.
  """
  if not active(config):
    return after, metrics
  verdict, usual = jnp.int32(health.FINE), jnp.float32(jnp.nan)
  if config.on_spike != 'note':
    moved, jumps, levels = {}, [], []
    for name in WATCHED:
      moved[name], jump, level = _averaged(before.metrics['usual'][name], metrics[name])
      jumps.append(jump)
      levels.append(level)
    verdict = jnp.select(jumps, [jnp.int32(code) for code in health.JUMPS], verdict)
    usual = jnp.select(jumps, levels, usual)
  if config.on_nonfinite == 'skip':
    verdict = jnp.where(_finite(after._replace(metrics={}, hparams={})), verdict, health.NO_UPDATE)
    verdict = jnp.where(_finite([metrics[name] for name in WATCHED]), verdict, health.NOT_FINITE)
  skipped = verdict != health.FINE
  after = jax.tree.map(lambda a, b: jnp.where(skipped, b, a), after, before)
  count = skipped.astype(jnp.float32)
  in_a_row = (before.metrics['in_a_row'] + 1) * count
  counters = {'skipped': before.metrics['skipped'] + count, 'in_a_row': in_a_row}
  if config.on_spike != 'note':
    not_finite = (verdict == health.NOT_FINITE) | (verdict == health.NO_UPDATE)
    counters['usual'] = jax.tree.map(lambda a, b: jnp.where(not_finite, b, a), moved, before.metrics['usual'])
  report = {'verdict': verdict.astype(jnp.float32), 'in_a_row': in_a_row, 'usual': usual}
  return after._replace(metrics=after.metrics | counters), metrics | report


def _finite(tree):
  floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]))


def _averaged(averages, value):
  """(the averages with a value, whether it is a jump, the usual value): `health.Jumps` in float32 on the devices."""
  count, mean, variance = averages['count'], averages['mean'], averages['variance']
  logarithm = jnp.log(jnp.maximum(value, 1e-30))
  bound = mean + jnp.maximum(health.DEVIATIONS * jnp.sqrt(variance), health.LEAST)
  jump = (count >= health.FIRST) & (logarithm > bound)
  count = count + 1
  rate = 1 / jnp.minimum(count, health.OVER)
  off = jnp.where(jump, bound, logarithm) - mean
  moved = {'count': count, 'mean': mean + rate * off,
           'variance': variance + rate * (off * off * (1 - rate) - variance)}
  return moved, jump, jnp.exp(mean)
