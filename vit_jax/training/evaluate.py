"""The metrics of an objective over a whole split: every example counts exactly once."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import host
from vit_jax.errors import UserError, nearest
from vit_jax.models import PureModel
from vit_jax.objectives import OBJECTIVES
from vit_jax.objectives.objective import Metric, Objective, counted, row_keys, weighed
from vit_jax.options import option

# The columns of a probe (`training.probing`).
PROBE = {'probe/accuracy': Metric(higher_is_better=True, share=True), 'probe/error': Metric(share=True, shown=False),
         'knn/accuracy': Metric(higher_is_better=True, share=True), 'knn/error': Metric(share=True, shown=False)}


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  # Steps between evaluations on `val`; None: 10 evaluations per run.
  every: int | None = option(None, hint='None or 0: 10 in a run; as many as the run has steps: one, at its end')
  batch_size: int | None = option(None, most=2**20)  # None: the batch size of training
  # Stop after this many evaluations without a better `metric`, and test the best; 0: off.
  patience: int = option(0, hint='0: off')
  metric: str = 'loss'  # one of the run's metrics: the objective's, and those of a probe
  # Training examples whose frozen features a linear probe and k-NN learn from at each evaluation; 0: no probe.
  probe: int = option(0, most=10_000_000, hint='0: off; 1,000 takes seconds')
  # After training, a temperature for the probabilities in use (`training.calibrating`) is fitted to `val`, where that
  # has at least so many pictures; 0: never. Logged losses stay plain.
  calibrate: int = option(0, hint='0: off; fewer than 100 pictures say little')


def check_patience(config: EvaluateConfig, val_examples: int) -> None:
  """Raises UserError where early stopping has nothing to look at."""
  if config.patience and not val_examples:
    raise UserError(f'evaluate.patience={config.patience}: early stopping needs data.val_examples above 0')


def check_metric(metric: str, known: Mapping[str, Metric], objective: str) -> None:
  """Raises UserError for an `evaluate.metric` that is none of the known ones."""
  if metric not in known:
    raise UserError(f'evaluate.metric={metric!r}: objective={objective} has no such metric{nearest(metric, known)}')


def check_probe(config: EvaluateConfig, labels: np.ndarray, num_classes: int) -> None:
  """Raises UserError where a probe would learn from pictures of one class alone, of several classes each, or none."""
  if num_classes < 2:
    raise UserError(f'evaluate.probe={config.probe}: learns classes, and the data have none; set it to 0')
  if labels.ndim > 1:
    raise UserError(f'evaluate.probe={config.probe}: learns one class for each picture, and these have several labels; '
                    'set it to 0')
  if len(np.unique(labels)) < 2:
    raise UserError(f'evaluate.probe={config.probe}: picks examples of one class alone; give a few times the number of '
                    'classes')


def higher_is_better() -> set[str]:
  """The names of the metrics of all objectives, and of probes, that are better the higher they are."""
  declared = (PROBE, *(columns for known in OBJECTIVES.values() for columns in (known.metrics, known.evaluated)))
  return {name for columns in declared for name, metric in columns.items() if metric.higher_is_better}


def make_eval_step(model: PureModel, normalize: Callable) -> Callable:
  """Returns a function `(params, stats, batch, first) -> {value: sum over the batch}`, to be jitted.

  Of an objective that scores splits as a whole, it returns what is `kept` of each example, and its 'weight'.

  `first` is the place of the batch's first example in its split. What is random in evaluation, such as masks, depends
  on an example's place alone: it is the same for all runs.
  """
  objective = model.objective

  def eval_step(params, stats, batch, first):
    keys_B = row_keys(jax.random.key(0), first + jnp.arange(len(batch['weight'])))
    plain = lambda images, targets=None, weights=None: (normalize(images), targets)
    given_B, batch = batch['weight'], objective.prepare(model, batch, plain, keys_B)
    outputs, _ = model.call(params, stats, lambda module: objective.forward(module, batch))
    if objective.whole_split:
      return objective.kept(outputs, batch) | {'weight': batch['weight']}
    values, weight_B = objective.score(outputs, batch), batch['weight']
    if weight_B is not given_B:  # the objective weighs examples; 0 * nan is nan
      values = {name: jnp.where(weight_B > 0, value, jnp.zeros_like(value)) for name, value in values.items()}
    total = counted if weight_B is given_B else weighed
    return {name: total(values[name], weight_B) for name in objective.values} | {'weight': jnp.sum(weight_B)}

  return eval_step


def evaluate(eval_step: Callable, objective: Objective, params: dict, stats: dict,
             batches: Iterable[dict], more: Callable[[dict], dict[str, float]] = lambda kept: {}) -> dict[str, float]:
  """The objective's metrics over all batches, with a jitted `eval_step` and batches placed on the devices.

  `more` gives further columns, from what is kept of the examples of a split that is scored as a whole.
  """
  sums, first = [], 0
  for batch in batches:
    sums.append(host.in_turn(eval_step(params, stats, batch, np.int32(first))))
    first += len(batch['weight'])
  sums = jax.device_get(sums)  # one transfer
  if objective.whole_split:
    kept = _joined(sums)
    return objective.score_split(kept) | more(kept)
  total = {name: sum(float(s[name]) for s in sums) for name in (*objective.values, 'weight')}
  return objective.report({name: total[name] / total['weight'] for name in objective.values})


def _joined(batches):
  """The examples of all batches, without the padding of the last."""
  kept = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
  count = int(np.flatnonzero(kept['weight']).max(initial=0)) + 1
  return {name: array[:count] for name, array in kept.items()}


def best_row(rows: list[dict], metric: str, metrics: Mapping[str, Metric]) -> dict:
  """The validation row with the best of these metrics; among equals, the latest."""
  return min(reversed(rows), key=lambda row: penalty(row, metric, metrics))


def penalty(row: dict, metric: str, metrics: Mapping[str, Metric]) -> float:
  """A value to minimise: the metric, or minus it if higher is better; infinite if the loss is not a number."""
  if row['loss'] is None or row.get(metric) is None:
    return float('inf')
  return -row[metric] if metrics[metric].higher_is_better else row[metric]


def out_of_patience(rows: list[dict], config: EvaluateConfig, metrics: Mapping[str, Metric]) -> bool:
  """Whether none of the last `patience` validation rows improved the metric. It depends only on the log."""
  if not config.patience or not rows:
    return False
  best = min(range(len(rows)), key=lambda i: penalty(rows[i], config.metric, metrics))
  return len(rows) - 1 - best >= config.patience
