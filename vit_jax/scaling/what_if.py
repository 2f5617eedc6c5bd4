"""What the page needs to answer questions on its own: the law on a grid, its optimum over compute, and filters."""

from typing import Any

import numpy as np

from vit_jax.scaling import frontier
from vit_jax.scaling.analysis import Analysis, flops_of
from vit_jax.scaling.points import Points

BELOW, ABOVE = 10.0, 1000.0  # the reach of the grid, as factors of the smallest and largest fitted value
NODES = {1: 40, 2: 16, 3: 8}  # nodes per axis for laws of so many inputs; of more inputs the page has no grid
BUDGETS = 40  # the number of vertices of the compute-optimal curves
MOST_VALUES = 12  # a column with more values is no use as a filter
_KEPT = ('params', 'params_non_embedding', 'examples', 'flops', 'run', 'lineage')  # columns that tell single runs apart


def grid(analysis: Analysis) -> dict[str, Any] | None:
  """The law on a grid, which law.js interpolates (Catmull-Rom splines in the logarithms).

  Returns:
    {axes: [{name, low, high, fitted_low, fitted_high, nodes}], values: {predicted | law_low | law_high | run_low |
    run_high: [nodes^inputs], in C order}, cost: {k, q} | None}. `low` and `high` are the first and last node.
    Without a bootstrap there is only `predicted`. None for laws of more than three inputs, and of whole curves.
  """
  fit, boot = analysis.fit, analysis.boot
  inputs = [name for name in fit.form.inputs if len(np.unique(fit.columns[name])) > 1]
  nodes = NODES.get(len(inputs))
  if nodes is None or 'area' in inputs:  # no schedule has just any two areas
    return None
  axes = []
  for name in inputs:
    low, high = float(fit.columns[name].min()), float(fit.columns[name].max())
    axes.append({'name': analysis.points.x_name if name == 'x' else name, 'low': low / BELOW, 'high': high * ABOVE,
                 'fitted_low': low, 'fitted_high': high, 'nodes': nodes})
  mesh = np.meshgrid(*(np.geomspace(axis['low'], axis['high'], nodes) for axis in axes), indexing='ij')
  at = {name: np.full(nodes ** len(inputs), fit.columns[name][0]) for name in fit.form.inputs}
  at |= {name: values.ravel() for name, values in zip(inputs, mesh)}
  values = {'predicted': fit.predict(at)}
  if boot:
    law, run = boot.bands(at)
    values |= {'law_low': law[0], 'law_high': law[1], 'run_low': run[0], 'run_high': run[1]}
  return {'axes': axes, 'values': {name: v.tolist() for name, v in values.items()}, 'cost': _cost(analysis, inputs)}


def _cost(analysis, inputs):
  """C = k N^q D, where the points say how FLOPs follow from N and D."""
  cost = analysis.cost
  if set(inputs) != {'params', 'examples'} or cost.assumed or cost.spread > frontier.COST_SPREAD:
    return None
  return {'k': cost.k, 'q': cost.q}


def optimum(analysis: Analysis) -> dict[str, list[float]] | None:
  """N*, D* and the loss over FLOPs, over all points and all budgets of law.json, with their intervals.

  Returns:
    {flops, params, examples, loss: [BUDGETS], and with a bootstrap NAME_ci95: [2, BUDGETS]}; None where the law has no
    compute-optimal size.
  """
  best = analysis.law['compute_optimal']
  if not best:
    return None
  known = [*flops_of(analysis.points, analysis.cost), *(row['flops'] for row in best['rows'])]
  budgets = np.geomspace(min(known), max(known), BUDGETS)
  rows = frontier.compute_optimal(analysis.fit, analysis.boot, budgets, analysis.cost)
  out = {name: [row[name] for row in rows] for name in ('flops', 'params', 'examples', 'loss')}
  for name in ('params_ci95', 'examples_ci95', 'loss_ci95'):
    if name in rows[0]:
      out[name] = np.transpose([row[name] for row in rows]).tolist()
  return out


def filters(points: Points) -> dict[str, list[str]]:
  """{column: [n] values as text} of the columns that take 2 to MOST_VALUES values, settings of runs among them."""
  out = {}
  for name in dict.fromkeys(key for row in points.rows for key in row):
    values = [_text(row.get(name)) for row in points.rows]
    few = 1 < len(set(values)) <= min(MOST_VALUES, len(values) - 1)
    # Width and mlp_dim often change together: the first name stands for both.
    if few and name[:1] != '_' and name not in (*_KEPT, points.metric) and values not in out.values():
      out[name] = values
  return out


def _text(value):
  return '' if value is None else f'{value:g}' if isinstance(value, float) else str(value)
