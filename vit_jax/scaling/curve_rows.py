"""Whole learning curves as points of a law: one row per evaluation, with what the learning rate has done until then.

The law of Tissue et al. 2024 (arXiv 2408.11029) describes every step of a run with any schedule by two areas:

  L(s) = L0 + A S1^-alpha - C S2,  S1 = sum of eta_i for i = 1..s,
  S2 = sum for i = 1..s of the sum for k = 1..i of (eta_{k-1} - eta_k) decay^(i-k).

S1 is the area under the learning rate eta. S2 is what annealing has taken away from it, with a memory of about
1 / (1 - decay) steps. Points have columns above 0, so S2 is given as the difference of two: `area` is S1, and `held`
is S1 + S2, which is the area under a rate that never fell where decay = 1.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vit_jax.scaling import run_rows
from vit_jax.scaling.rows import number
from vit_jax.scaling.tables import Row

FORM = 'E + A/area^alpha - G*(held-area)'  # C is FLOPs in written forms
DECAYS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)  # what `auto` chooses from
_TRAINED = ('finished', 'trunk', 'running')  # and not pruned, say


@dataclasses.dataclass(frozen=True)
class Curves:
  """How curves are read.

  Attributes:
    rates: maps a run's config and its number of steps n to its learning rates [n].
    decay: the memory of S2, from 0 to below 1; None for laws without S2, which read `_rates` of each row.
  """
  rates: Callable[[Mapping[str, Any], int], np.ndarray]
  decay: float | None = 0.999


def areas(rates: np.ndarray, warmup: int, decay: float) -> tuple[np.ndarray, np.ndarray]:
  """`area` and `held` after each step, each [n].

  Args:
    rates: [n], the learning rate of each step.
    warmup: the first steps, in which the rate rises to its peak; S2 begins after them.
    decay: the memory of S2.
  """
  falls = -np.diff(rates, prepend=rates[0])
  falls[:warmup] = 0
  momentum, annealed = 0.0, np.empty(len(rates))
  for i, fall in enumerate(falls):
    momentum = decay * momentum + fall
    annealed[i] = momentum
  area = np.cumsum(rates)
  return area, area + np.cumsum(annealed)


def rows_of(name: str, folder: str, run: Row, lines: list[Row], metric: str,
            curves: Curves) -> tuple[list[Row], run_rows.Curve] | str:
  """The rows and the learning curve of a run, or why it has none.

  Args:
    name: the name of the run's folder.
    folder: the name of the folder that it is in.
    run: the content of run.json.
    lines: the rows of metrics.jsonl.
    metric: a column of metrics.jsonl, or SPLIT/NAME of it.
    curves: how to read it.

  Returns:
    Rows with the columns of `run_rows.row_of`, and `area`, `held` and `length` (the steps of the whole run; 0 for a
    trunk). Evaluations during the warm-up are left out. `_rates` are the learning rates from the end of the warm-up to
    the evaluation.
  """
  config, steps = run.get('config') or {}, run.get('steps')
  if run.get('status') not in _TRAINED:
    return f'status {run.get("status")!r}: not a run that was trained'
  if not steps or 'schedule' not in config:
    return 'no steps or no schedule in run.json'
  split, short, scored = run_rows.evaluations(lines, metric)
  warmup = config['schedule'].get('warmup_steps') or 0
  rates = curves.rates(config, steps)
  area, held = areas(rates, warmup, curves.decay or 0.0)
  length = 0 if run['status'] == 'trunk' else steps
  same = {'run': name, 'folder': folder, 'split': split, 'length': length, **run_rows.settings(run, config, split),
          **{key: value for key, value in run_rows.flat(config).items() if '.' in key}}
  found = [row | {'_rates': rates[max(warmup - 1, 0):row['step']]}
           for row in _rows(same | {'_config': config, '_metric': metric}, scored, short, warmup, area, held)]
  if not found:
    return f'no {metric} after the warm-up in metrics.jsonl'
  curve = [(row['examples'], row[metric]) for row in found if row.get('examples')]
  return found, tuple(np.array(curve, float).reshape(-1, 2).T)


def _rows(same, scored, short, warmup, area, held) -> Iterator[Row]:
  for line in scored:
    step = line.get('step')
    if isinstance(step, int) and warmup < step <= len(area) and number(line[short]) is not None:
      yield {**same, same['_metric']: line[short], **{k: line.get(k) for k in ('examples', 'flops', 'step', 'epochs')},
             'area': float(area[step - 1]), 'held': float(held[step - 1])}
