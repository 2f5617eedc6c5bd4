"""Loss and accuracy over a whole split: every example counts exactly once."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Literal

import jax
import jax.numpy as jnp

from vit_jax import host
from vit_jax.errors import UserError
from vit_jax.models import PureModel
from vit_jax.optimisation import losses
from vit_jax.options import option


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  # Steps between evaluations on `val`; None: 10 evaluations per run.
  every: int | None = option(None, hint='None or 0: 10 in a run; as many as the run has steps: one, at its end')
  batch_size: int | None = option(None, most=2**20)  # None: the batch size of training
  # Stop after this many evaluations without a better `metric`, and test the best; 0: off.
  patience: int = option(0, hint='0: off')
  metric: Literal['loss', 'accuracy'] = 'loss'


def check_patience(config: EvaluateConfig, val_examples: int) -> None:
  """Raises UserError where early stopping has nothing to look at."""
  if config.patience and not val_examples:
    raise UserError(f'evaluate.patience={config.patience}: early stopping needs data.val_examples above 0')


def make_eval_step(model: PureModel, normalize: Callable) -> Callable:
  """Returns a function `(params, stats, batch) -> {loss, correct, weight}` of sums over the batch, to be jitted.

  The loss is plain cross-entropy whatever the training loss is, so that runs can be compared.
  """

  def eval_step(params, stats, batch):
    logits_BC, _, _ = model.apply(params, stats, normalize(batch['image']))
    targets_BC = losses.targets(batch['label'], model.num_classes, 0.0)
    loss_B = losses.per_example('softmax', logits_BC, targets_BC)
    correct_B = jnp.argmax(logits_BC, axis=-1) == batch['label']
    weight_B = batch['weight']
    # Not `loss * weight`, as the loss of a padding row may be nan, and 0 * nan is nan.
    return {'loss': jnp.sum(loss_B, where=weight_B > 0), 'correct': jnp.sum(weight_B, where=correct_B),
            'weight': jnp.sum(weight_B)}

  return eval_step


def evaluate(eval_step: Callable, params: dict, stats: dict, batches: Iterable[dict]) -> dict[str, float]:
  """{'loss', 'accuracy', 'error'} over all batches, with a jitted `eval_step` and batches placed on the devices."""
  sums = jax.device_get([host.in_turn(eval_step(params, stats, batch)) for batch in batches])  # one transfer
  total = {name: sum(float(s[name]) for s in sums) for name in ('loss', 'correct', 'weight')}
  accuracy = total['correct'] / total['weight']
  return {'loss': total['loss'] / total['weight'], 'accuracy': accuracy, 'error': 1 - accuracy}


def best_row(rows: list[dict], metric: str) -> dict:
  """The validation row with the best metric; among equals, the latest."""
  return min(reversed(rows), key=lambda row: penalty(row, metric))


def penalty(row: dict, metric: str) -> float:
  """A value to minimise: the loss, or minus the accuracy; infinite if the loss is not a number."""
  value = row['loss'] if metric == 'loss' else -row['accuracy']
  return float('inf') if row['loss'] is None else value


def out_of_patience(rows: list[dict], config: EvaluateConfig) -> bool:
  """Whether none of the last `patience` validation rows improved the metric. It depends only on the log."""
  if not config.patience or not rows:
    return False
  best = min(range(len(rows)), key=lambda i: penalty(rows[i], config.metric))
  return len(rows) - 1 - best >= config.patience
