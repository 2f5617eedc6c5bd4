"""From run folders and tables to laws, as the command and `vit_jax.fit` share it: read, tune, fit, compare, predict."""

import dataclasses
import math
from typing import Any

import numpy as np

from vit_jax.errors import UserError, nearest
from vit_jax.law_options import Options
from vit_jax.scaling import (
  analysis,
  chain,
  curve_law,
  curve_rows,
  estimate,
  multi_power,
  points,
  target,
  tuned,
  written,
)
from vit_jax.scaling.analysis import Analysis
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points
from vit_jax.scaling.shared import Together
from vit_jax.scaling.verdict import number


@dataclasses.dataclass(frozen=True)
class Fitted:
  """The laws of some runs.

  Attributes:
    loaded: the points.
    groups: {name: law}; {'': law} without groups. Each has its targets and chained law (`then`), where asked for.
    together: the fit of all groups with shared coefficients; None without these.
    multipliers: the comparisons of groups.
  """
  loaded: Points
  groups: dict[str, Analysis]
  together: Together | None
  multipliers: list[dict[str, Any]]


def fit(paths: list, options: Options) -> Fitted:
  """Fits the laws of run folders and tables.

  Raises:
    UserError: options that do not go together, or points that the form cannot be fitted to.
  """
  for name in ('best_of', 'frontier'):
    if options.curves and getattr(options, name):
      raise UserError(f'--{name} is about the ends of runs, and --curves={options.curves} reads all of them; leave one '
                      'out')
  loaded, settings = _load(paths, options)
  if options.best_of:
    higher = () if tuned.say_which_is_better(loaded) else _higher_is_better()
    loaded = tuned.best_of(loaded, options.best_of, options.group, options.best_by, higher)
  split = analysis.split_groups(loaded, options.group)
  if options.frontier:
    split = {name: tuned.frontier(group, options.frontier) for name, group in split.items()}
  pairs = analysis.pairs(list(split), options.compare)
  together = analysis.fit_together(split, settings)
  groups = analysis.analyse_groups(split, settings, together)
  if settings.budgets and not any(group.law['compute_optimal'] for group in groups.values()):
    raise UserError(f'--budget={",".join(map(number, options.budget))}: expected a form in params and examples, such '
                    'as --form=chinchilla')
  _predict(groups, options)
  return Fitted(loaded, groups, together, analysis.multipliers(groups, pairs))


def _load(paths, options):
  """The points, and the options of the analysis."""
  powers = options.curves == multi_power.NAME
  if powers and (options.form != 'auto' or options.start or options.target):
    raise UserError(f'--curves={multi_power.NAME}: it is a form with starts of its own, and no target says a whole '
                    'schedule; leave --form, --start and --target out')
  if options.form == multi_power.NAME:
    raise UserError(f'--form={multi_power.NAME}: it is a form of whole curves; expected --curves={multi_power.NAME}')
  given = curve_rows.FORM if options.curves and options.form == 'auto' else options.form
  text = given if written.is_written(given) else ''
  inputs = _inputs(text, options)
  _check_columns(options)
  load = lambda whole=None: points.load(paths, options.metric, _x(inputs, text, options), dict(options.columns),
                                        options.group, [name for name in inputs if name != 'x' and not text],
                                        options.where, options.best_by, options.pool, text, _also(options), whole)
  starts = chain.starts(options.start, options.then, text)[0]
  form = lambda loaded: written.form(text, starts, loaded.columns) if text else given
  settings = lambda loaded: analysis.Settings(
      form(loaded), Objective(options.objective, options.delta), options.bootstrap, options.seed, options.holdout,
      options.sigma, options.budget, options.pool, options.share, options.separate)
  if not options.curves:
    loaded = load()
    return loaded, settings(loaded)
  if powers:
    read = load(curve_rows.Curves(_rates, None))
    loaded, form_of_runs = multi_power.of(read)
    return loaded, dataclasses.replace(settings(read), form=form_of_runs)
  return curve_law.choose(lambda decay: load(curve_rows.Curves(_rates, decay)), settings, _decays(options.curves),
                          options.group)


def _inputs(text, options):
  """The columns that the form reads: of a written form the names that may be columns, of auto none."""
  if options.start and not (text or options.then):
    raise UserError(f'--start={options.start}: expected a form that is an expression, such as '
                    f"--form='E + A/N^alpha + B/D^beta', got --form={options.form}")
  if text:
    return written.names(text)
  return () if options.form == 'auto' else estimate.form_class(options.form).inputs


def _x(inputs, text, options):
  """The column of x; None for forms in params and examples."""
  if inputs and 'x' not in inputs:
    if options.x:
      raise UserError(f'--x={options.x}: expected no --x, because --form={text or options.form} '
                      + ('has no x in it' if text else f'reads {", ".join(inputs)}'))
    return None
  if inputs and options.x is None and not text:
    raise UserError(f'--form={options.form}: expected --x, the input column, such as examples, params or flops')
  return options.x


def _check_columns(options):
  known = (*points.AXES, *points.LABELS, options.metric, *([options.x] if options.x else []), *_also(options))
  for ours, theirs in options.columns:
    if ours not in known:
      raise UserError(f'--columns={ours}={theirs}: unknown column {ours!r}{nearest(ours, known)}')


def _also(options):
  """The second metric of chained laws."""
  return [chain.parse(options.then)[0]] if options.then else []


def _decays(curves):
  """The decays of annealing that --curves names."""
  try:
    given = curve_rows.DECAYS if curves == 'auto' else (float(curves),)
  except ValueError:
    given = (math.nan,)
  if not all(0 <= decay < 1 for decay in given):
    raise UserError(f'--curves={curves}: expected auto, {multi_power.NAME}, or a decay from 0 to below 1, such '
                    'as 0.999')
  return given


def _rates(config, steps):
  """The learning rate of each step [steps] of a run."""
  from vit_jax import schema  # the schedules need JAX, which no other law does
  from vit_jax.optimisation import schedule
  return config['optimizer']['learning_rate'] * schedule.multiplier(
      schema.cast(schedule.ScheduleConfig, config['schedule']), steps, np.arange(steps), np)


def _higher_is_better():
  """The metrics of which the highest is best, for tables and old runs, which do not say it."""
  from vit_jax.training import evaluate
  return evaluate.higher_is_better()


def _predict(groups, options):
  """Adds `targets` to the laws, and `then`, the law of a second metric, where it is asked for."""
  targets = target.parse(options.target) if options.target else []
  for group in groups.values():
    group.law['targets'] = target.predict(group, targets) if targets else []
    if options.then:
      starts = chain.starts(options.start, options.then, group.fit.form.name if options.start else '')[1]
      group.law['then'] = chain.analyse(group, options.then, starts, targets).summary
