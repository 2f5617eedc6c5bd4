"""Chained laws: a second metric, such as downstream error, from the first one, with intervals through both.

The link is fitted to the measured values of both metrics, on the points of the first law. A prediction draws a refit of
each law and, for a new run, noise of each: the loss of a run that is unlucky moves its error along the link.
"""

import dataclasses

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import analysis as analysis_lib
from vit_jax.scaling import frontier, written
from vit_jax.scaling import target as target_lib
from vit_jax.scaling.analysis import Analysis
from vit_jax.scaling.bootstrap import percentile
from vit_jax.scaling.points import Points
from vit_jax.scaling.rows import number

DRAWS = 2000


@dataclasses.dataclass(frozen=True)
class Link:
  """The law of the second metric, with the first one as an input.

  Attributes:
    first: the law of the first metric.
    second: the law of the second.
    summary: the entry `then` of law.json: {metric, law, holdout, compute_optimal, targets, warnings}.
  """
  first: Analysis
  second: Analysis
  summary: dict


def parse(text: str) -> tuple[str, str]:
  """(metric, form) of a text such as `error = lo + (hi-lo)*sigmoid(k*(loss-m))`.

  Raises:
    UserError: it has no `=`, or no expression after it.
  """
  metric, equals, form = (part.strip() for part in text.partition('='))
  if not (equals and metric and written.is_written(form)):
    raise UserError(f"--then={text}: expected METRIC = EXPRESSION, such as 'error = lo + (hi-lo)*sigmoid(k*(loss-m))'")
  return metric, form


def analyse(first: Analysis, text: str, start: str, targets: list[target_lib.Target]) -> Link:
  """Fits the link, and predicts the second metric from the inputs of the first law.

  Args:
    first: the law of the first metric; rows of its points have the second.
    text: see `parse`.
    start: bounds and starts of the link's coefficients (see `start.parse`).
    targets: where to predict.

  Raises:
    UserError: no column of the second metric, a form without the first metric, or see `analysis.analyse`.
  """
  metric, form = parse(text)
  if metric == first.points.metric:
    raise UserError(f'--then={text}: expected a second metric, got {metric}, which --form predicts')
  points = _points(first.points, metric)
  cls = written.form(form, start, points.columns)
  if cls.inputs != (first.points.metric,):
    raise UserError(f'--then={text}: expected a form of {first.points.metric} alone, got {", ".join(cls.inputs)}')
  settings = dataclasses.replace(first.settings, form=cls, budgets=(), sigma=None)
  second = analysis_lib.analyse(points, settings, partly=True)
  draws = _Draws(first, second)
  held = points.take(second.held)
  optimal = first.law['compute_optimal']
  summary = {'metric': metric, 'law': second.law, 'holdout': _holdout(draws, held) if len(held) else None,
             'compute_optimal': optimal and _optimal(draws, optimal['rows']),
             'targets': _at(draws, target_lib.columns(targets, first.fit.form.inputs, first.points.x_name),
                            targets) if targets else []}
  summary['warnings'] = _warnings(draws, summary, metric)
  return Link(first, second, summary)


def _points(points: Points, metric: str) -> Points:
  """The points that have the second metric, with the first as a column."""
  values = np.array([np.nan if (v := number(row.get(metric))) is None else v for row in points.rows])
  keep = np.isfinite(values) & (values > 0)
  if not keep.any():
    raise UserError(f'--then: no {metric} above 0 in the points')
  out = points.take(keep)
  dropped = tuple((run, f'no {metric}') for run, there in zip(points.runs, keep) if not there)
  return dataclasses.replace(out, metric=metric, y=values[keep], columns=out.columns | {points.metric: out.y},
                             curves={}, dropped=dropped)


class _Draws:
  """Predictions through both laws: of the fits, and of pairs of refits with and without noise."""

  def __init__(self, first, second):
    self.first, self.second = first, second
    self.boots = None if None in (first.boot, second.boot) else (first.boot, second.boot)
    self.random = np.random.default_rng(first.settings.seed + 2)

  def value(self, loss):
    """The second metric for values of the first, [m]."""
    return self.second.fit.predict({self.first.points.metric: loss})

  def through(self, losses):
    """Draws [DRAWS, m] of the law and of a new run, for the first metric in each refit [R, m]; None without refits."""
    if self.boots is None:
      return None
    name, (part,) = self.first.points.metric, self.boots[1].parts
    losses = losses[self.random.integers(len(losses), size=DRAWS)]
    theta = part.theta[self.random.integers(len(part.theta), size=DRAWS)]
    link = lambda at: part.form.model(theta, {name: at})[0]
    with np.errstate(all='ignore'):
      return link(losses), self._noisy(1, link(self._noisy(0, losses)))

  def _noisy(self, which, values):
    boot = self.boots[which]
    noise = self.random.choice(boot.noise, size=values.shape)
    return values * np.exp(noise) if boot.fit.objective.log else values + noise


def _row(draws, loss, losses, i):
  """{predicted, ci95, ci95_run} for values of the first metric: of the fit [m], and of the refits [2][DRAWS, m]."""
  ends = [None, None] if losses is None else [percentile(draw[:, i]) for draw in losses]
  return {'predicted': float(draws.value(loss)[i]), 'ci95': ends[0], 'ci95_run': ends[1]}


def _at(draws, columns, targets):
  loss = draws.first.fit.predict(columns)
  through = draws.through(draws.first.boot.predictions(columns)) if draws.boots else None
  return [{'target': target, 'metric': draws.second.points.metric, 'through': float(loss[i]),
           **_row(draws, loss, through, i)} for i, target in enumerate(targets)]


def _holdout(draws, held):
  columns = {name: held.columns[name] for name in draws.first.fit.form.inputs}
  rows = [{'run': held.runs[i], 'measured': float(held.y[i]), **{k: v for k, v in row.items() if k != 'target'}}
          for i, row in enumerate(_at(draws, columns, [{}] * len(held)))]
  for row in rows:
    if row['ci95_run']:
      row['inside'] = bool(row['ci95_run'][0] <= row['measured'] <= row['ci95_run'][1])
  errors = [np.log(row['predicted'] / row['measured']) for row in rows]
  return {'n': len(rows), 'rmsle': float(np.sqrt(np.mean(np.square(errors)))), 'rows': rows}


def _optimal(draws, rows):
  budgets = np.array([row['flops'] for row in rows])
  loss = np.array([row['loss'] for row in rows])
  through = draws.through(frontier.optimal_losses(draws.first.boot, budgets, draws.first.cost)) if draws.boots else None
  return [{'flops': float(budget), 'through': float(loss[i]), **_row(draws, loss, through, i)}
          for i, budget in enumerate(budgets)]


def _warnings(draws, summary, metric) -> list[str]:
  name, fitted = draws.first.points.metric, draws.second.fit.columns[draws.first.points.metric]
  beyond = [row for row in summary['targets'] if not fitted.min() <= row['through'] <= fitted.max()]
  out = [f'{metric} at {target_lib.describe(row["target"])} is read off the link at {name} {row["through"]:.4g}, '
         f'outside of the {fitted.min():.4g} to {fitted.max():.4g} that it was fitted to' for row in beyond]
  if missing := summary['law']['not_identified']:
    out.append(f'{" and ".join(missing)} of the link not identified')
  return out


def starts(text: str, link: str, form: str) -> tuple[str, str]:
  """What --start says of the first form, and of the link; a name that both have counts for both."""
  of_link = set(written.names(parse(link)[1])) if link else set()
  of_form = set(written.names(form)) if form else set()
  items = [(item, item.strip().split('=')[0].split('<')[0].split('>')[0].strip()) for item in text.split(',')]
  return (','.join(item for item, name in items if name in of_form or name not in of_link),
          ','.join(item for item, name in items if name in of_link))
