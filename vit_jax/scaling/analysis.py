"""The analysis of a set of points: fit, intervals, hold-out error, frontier and warnings; the contents of law.json."""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.errors import UserError, nearest
from vit_jax.scaling import (
  alike,
  bootstrap,
  checks,
  decide,
  estimate,
  frontier,
  holdout,
  isoflop,
  lights,
  select,
  shared,
  verdict,
)
from vit_jax.scaling.bootstrap import Bootstrap
from vit_jax.scaling.estimate import Fit
from vit_jax.scaling.forms import Form
from vit_jax.scaling.frontier import Cost
from vit_jax.scaling.minimize import Objective
from vit_jax.scaling.points import Points, column
from vit_jax.scaling.rollout import misses, persistence, rollout, widening

_WIDER = ('intervals beyond the fitted sizes are {:.2g} times as wide as the refits say: forecasts of larger runs by '
          'fits to the smaller ones missed by as much')
_OPTIMUM = ('intervals of N* and D* beyond the fitted budgets are {:.2g} times as wide as the refits say: fits to '
            'smaller sizes, or shorter lengths, forecast another N*')


@dataclasses.dataclass(frozen=True)
class Settings:
  """The options of an analysis; see `python -m vit_jax.law --help`."""
  form: str | type[Form] = 'auto'
  objective: Objective = Objective()
  replicates: int = 1000
  seed: int = 0
  holdout: str | None = None
  sigma: str | None = None
  budgets: tuple[float, ...] = ()
  pool: tuple[str, ...] = ()
  share: tuple[str, ...] = ()
  separate: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Analysis:
  """One law, with everything that the figures and the report show.

  Attributes:
    points: all n points.
    fitted: bool [n], the points that the law was fitted to.
    held: bool [n], the held-out points. A point in neither set is below the chosen cut-off.
    law: the object written to law.json.
  """
  points: Points
  fitted: np.ndarray
  held: np.ndarray
  settings: Settings
  fit: Fit
  boot: Bootstrap | None
  selection: select.Selection | None
  cost: Cost
  valleys: list[isoflop.Valley]
  rollout: list[dict]
  seed_noise: dict | None
  law: dict[str, Any]


def analyse(points: Points, settings: Settings, partly: bool = False,
            given: tuple[Fit, Bootstrap | None] | None = None) -> Analysis:
  """Fits and tests a law on one group of points.

  Args:
    points: the points.
    settings: the options.
    partly: whether nothing need be held out, because points of other groups are.
    given: the fit and its refits, where they were made with those of other groups.

  Raises:
    UserError: see `estimate.fit`, `select.choose` and `holdout.mask`.
  """
  held = holdout.mask(points, settings.holdout, some=not partly)
  weights = _weights(points, settings.sigma)
  selection, form, fitted = None, settings.form, ~held
  if form == 'auto':
    train = points.take(~held)
    selection = select.choose(train, select.candidate_forms(train), settings.objective, weights[~held])
    form, fitted = selection.best.form, ~held & (points.size[1] >= selection.best.cutoff)
  used = points.take(fitted)
  fit = given[0] if given else estimate.fit(form, used.columns, used.y, settings.objective, weights[fitted])
  clusters, found = (used.clusters, '') if given else alike.lineages(used, fit)
  boot = given[1] if given else _bootstrap(points, held, fitted, weights, fit, clusters, selection, settings)
  rolled = rollout(points, form, settings.objective, fit.sigma)
  wider = widening(rollout(points.take(~held), form, settings.objective, fit.sigma) if held.any() else rolled)
  broken = boot and select.broken(points.take(~held), fit, weights[~held], settings.replicates, settings.seed)
  cost = _cost(used)
  boot = boot and dataclasses.replace(
      boot, widening=wider, of_optimum=frontier.widening_of_optimum(fit, cost, clusters), broken=broken)
  valleys, growth = _valleys(used, fit, settings)
  noise, curvature = seed_noise(used), checks.curvature(fit, clusters)
  pooled = alike.pooled(used, fit, settings.pool)
  law = _law(points, fitted, held, settings, fit, boot, cost, valleys, growth)
  law['notes'] += [*([found] if found else []), *alike.tuned_columns(used, fit, settings.pool),
                   *(mixed.words for mixed in pooled if not mixed.differ),
                   *([_WIDER.format(wider)] if boot and wider > 1.05 else []), *([broken.words] if broken else []),
                   *([_OPTIMUM.format(boot.of_optimum)] if boot and boot.of_optimum > 1.05 * wider else [])]
  law['not_identified'] = verdict.not_identified(law)
  law['lights'] = lights.lights(law, curvature, misses(rolled), [mixed.words for mixed in pooled if mixed.differ])
  law['warnings'] = verdict.warnings(fit, boot, law, used, cost, settings, noise, curvature)
  law['selection'] = selection and {'chosen': selection.describe(), 'candidates': [
      dataclasses.asdict(c) for c in selection.candidates]}
  law['seed_noise'], law['outliers'] = noise, [used.runs[i] for i in np.flatnonzero(fit.outliers)]
  law['lack_of_fit'] = curvature and dataclasses.asdict(curvature)
  law['verdict'] = verdict.verdict(law)
  return Analysis(points, fitted, held, settings, fit, boot, selection, cost, valleys, rolled, noise, law)


def _bootstrap(points, held, fitted, weights, fit, clusters, selection, settings):
  """The intervals of the fit; with a selection, it is repeated in every resample."""
  if selection is None:
    return bootstrap.run(fit, clusters, settings.replicates, settings.seed)
  train, size = points.take(~held), points.size[1][~held]
  whole = train.clusters.copy()
  if len(np.unique(clusters)) < len(np.unique(points.take(fitted).clusters)):  # lineages that no column tells
    whole = np.unique(train.columns['params'], return_inverse=True)[1]

  def candidate(k):
    chosen = selection.candidates[k]
    inside = size >= chosen.cutoff
    if chosen == selection.best:
      return fit, inside
    part = train.take(inside)
    return estimate.fit(chosen.form, part.columns, part.y, settings.objective, weights[~held][inside],
                        exact=False), inside

  return bootstrap.run_selected(fit, candidate, selection.resampled, whole, settings.replicates, settings.seed)


def fit_together(groups: dict[str, Points], settings: Settings) -> shared.Together | None:
  """The fit of all groups with the coefficients that --share, or all but --separate, name; None without these.

  Raises:
    UserError: see `shared.names` and `shared.fit`, or a form that is chosen for each group.
  """
  if not (settings.share or settings.separate):
    return None
  if settings.form == 'auto':
    raise UserError('--share and --separate: expected one form for all groups, such as --form=chinchilla')
  cls = estimate.form_class(settings.form)
  names = shared.names(cls, settings.share, settings.separate)
  fitted = {name: group.take(~holdout.mask(group, settings.holdout, some=False)) for name, group in groups.items()}
  weights = {name: _weights(group, settings.sigma) for name, group in fitted.items()}
  return shared.fit(fitted, weights, cls, names, settings.objective, settings.replicates, settings.seed)


def analyse_groups(groups: dict[str, Points], settings: Settings,
                   together: shared.Together | None = None) -> dict[str, Analysis]:
  """The analysis of each group. A group of several in which nothing is held out is fitted whole, with a note.

  Args:
    groups: {name: points}.
    settings: the options.
    together: the fit of all groups with shared coefficients; None to fit each on its own.

  Raises:
    UserError: see `analyse`; the message names the group. Or no group has points that are held out.
  """
  held, out = False, {}
  for name, group in groups.items():
    with _named(name):
      held |= bool(holdout.mask(group, settings.holdout, some=len(groups) == 1).any())
  if settings.holdout and not held:
    raise UserError(f'--holdout={settings.holdout}: holds out no point of any group; expected at least one')
  for name, group in groups.items():
    with _named(name):
      out[name] = analyse(group, settings, len(groups) > 1, together.fits[name] if together else None)
    if together:
      out[name].law['notes'].append(f'fitted together with the other groups: {together.describe()}')
    if settings.holdout and not out[name].held.any():
      out[name].law['notes'].append(f'--holdout={settings.holdout} holds out none of this group: it is fitted whole')
  return out


@contextlib.contextmanager
def _named(group):
  """Names the group in an error."""
  try:
    yield
  except UserError as error:
    raise UserError(f'--group, {group}: {error}' if group else str(error)) from error


def pairs(names: list[str], compare: Sequence[str] = ()) -> list[tuple[str, str]]:
  """The pairs of groups to compare: (A, B) of `compare`, every pair for "all"; by default two groups, if these are all.

  Raises:
    UserError: a group that is not there.
  """
  if list(compare) == ['all'] or (not compare and len(names) == 2):
    return list(itertools.combinations(names, 2))
  if compare and len(compare) != 2:
    raise UserError(f'--compare={",".join(compare)}: expected two groups, such as --compare=A,B, or --compare=all')
  for name in compare:
    if name not in names:
      known = nearest(name, names) if any(names) else ': there are no groups; --group=COLUMN makes them'
      raise UserError(f'--compare={",".join(compare)}: unknown group {name!r}{known}')
  return [tuple(compare)] if compare else []


def multipliers(groups: dict[str, Analysis], compared: Sequence[tuple[str, str]]) -> list[dict]:
  """The resources that group b needs relative to group a for the same loss, for each pair (a, b).

  Returns:
    Rows {a, b, of, loss, multiplier, ci95, p, spread, runs_needed, crosses_at, words} (see `decide`). `of` names the
    resource: x for forms of one input, otherwise FLOPs. `loss` is the lowest value that the fitted points of both
    groups reach.
  """
  out = []
  for a, b in compared:
    sides = groups[a], groups[b]
    of = {g.points.x_name if g.fit.form.inputs == ('x',) else 'flops' for g in sides}
    if not all(frontier.has_optimum(g.fit, g.cost) for g in sides if g.fit.form.inputs != ('x',)):
      continue
    decreasing = all(g.fit.coefficients.get('c', -1) < 0 for g in sides if g.fit.form.name == 'power')
    if len(of) == 1 and decreasing:
      of, loss = of.pop(), max(float(g.points.y[g.fitted].min()) for g in sides)
      used = np.concatenate([_resource(g, of) for g in sides])
      row = frontier.multiplier(*((g.fit, g.boot, g.cost) for g in sides), loss, (used.min(), used.max()))
      row |= {'a': a, 'b': b, 'of': of, 'metric': sides[0].points.metric}
      out.append({**row, **_decision(row, sides, (used.min(), used.max()))})
  return out


def _decision(row, sides, span):
  """What a multiplier still needs, where the laws cross, and all of it in words."""
  out, seeds = {}, [g.seed_noise['std_log'] for g in sides if g.seed_noise]
  if 0 < row['multiplier'] < np.inf and 'spread' in row:
    out['runs_needed'] = decide.runs_needed(row['multiplier'], row['spread'], {
        name: g.boot.clusters for name, g in zip((row['a'], row['b']), sides)})
  if 0 < row['multiplier'] < np.inf:
    values = [g.points.y[g.fitted] for g in sides]
    both = max(y.min() for y in values), min(y.max() for y in values)
    out['crosses_at'] = decide.crossing(*((g.fit, g.boot, g.cost) for g in sides), both, span)
  more = decide.describe(row | out, max(seeds) if seeds else None)
  return out | {'words': verdict.describe_multiplier(row) + (f'; {more}' if more else '')}


def _resource(group, of):
  fitted = group.points.take(group.fitted)
  return flops_of(fitted, group.cost) if of == 'flops' else fitted.columns['x']


def split_groups(points: Points, name: str | None) -> dict[str, Points]:
  """{value: points} for the values of a column, in sorted order; {'': points} without a column."""
  if name is None:
    return {'': points}
  values = np.array([str(v) for v in column(points, name)])
  return {value: points.take(values == value) for value in sorted(set(values.tolist()))}


def seed_noise(points: Points) -> dict | None:
  """The spread of runs that differ only in their seed: {sets, runs, std_log}; None if there are no such runs."""
  if not all('seed' in row for row in points.rows):
    return None
  sets: dict[str, list[float]] = {}
  for i, row in enumerate(points.rows):
    config = {k: v for k, v in (row.get('_config') or {}).items() if k not in ('seed', 'system')}
    key = json.dumps([config, [float(v[i]) for v in points.columns.values()]], sort_keys=True)
    sets.setdefault(key, []).append(float(np.log(points.y[i])))
  several = [np.array(v) for v in sets.values() if len(v) > 1]
  if not several:
    return None
  freedom = sum(len(v) - 1 for v in several)
  std = float(np.sqrt(sum(((v - v.mean()) ** 2).sum() for v in several) / freedom))
  return {'sets': len(several), 'runs': int(sum(map(len, several))), 'std_log': std}


def _weights(points, sigma):
  """1/sigma^2, normalized to a mean of 1."""
  if sigma is None:
    return np.ones(len(points))
  try:
    values = np.array(column(points, sigma), float)
  except UserError as error:
    raise UserError(f'--sigma={sigma}: {error}') from error
  except ValueError as error:
    raise UserError(f'--sigma={sigma}: expected a column of numbers ({error})') from error
  if not np.all(good := np.isfinite(values) & (values > 0)):
    raise UserError(f'--sigma={sigma}: expected standard deviations above 0, got {values[~good][0]:g}')
  return values ** -2 / np.mean(values ** -2)


def _cost(points):
  columns = points.columns
  if 'params' not in columns or 'examples' not in columns:
    return Cost(assumed=True)
  return frontier.cost_law(columns['params'], columns['examples'], columns.get('flops'))


def flops_of(points: Points, cost: Cost) -> np.ndarray:
  """The training FLOPs [n] of points: as given, else by the cost of their N and D."""
  c = points.columns
  return c['flops'] if 'flops' in c else c['x'] if points.x_name == 'flops' else cost.k * c['params'] * c['examples']


def _valleys(points, fit, settings):
  """The IsoFLOP valleys and the exponent of their optima; their intervals come from a surface fitted to all points."""
  columns = points.columns
  if not {'params', 'examples', 'flops'} <= columns.keys():
    return [], None
  found = isoflop.valleys(columns['params'], columns['examples'], columns['flops'], points.y, settings.seed)
  if not found:
    return [], None
  try:
    if fit.form.inputs != ('params', 'examples'):
      fit = estimate.fit('chinchilla', columns, points.y, settings.objective, exact=False)
  except UserError:
    return found, isoflop.exponent(found)
  errors = isoflop.simulate(found, lambda n, d: fit.predict({'params': n, 'examples': d}), fit.sigma,
                            max(len(points) - len(fit.theta), 1), fit.objective.log, settings.seed)
  return isoflop.calibrated(found, errors), isoflop.exponent(found, errors)


def _law(points, fitted, held, settings, fit, boot, cost, valleys, growth):
  budgets = np.array(settings.budgets) if settings.budgets else _budgets(points.take(fitted), cost)
  optimal = frontier.compute_optimal(fit, boot, budgets, cost)
  return {
      'form': fit.form.name, 'metric': points.metric, 'x': points.x_name, 'n': int(fitted.sum()),
      'coefficients': fit.coefficients,
      'objective': {'name': fit.objective.name, **({'delta': fit.objective.delta} if fit.objective.name == 'log_huber'
                                                   else {}), 'value': fit.value},
      'ci95': boot.interval() if boot else None,
      'bootstrap': {'n': settings.replicates if boot else 0, 'seed': settings.seed,
                    'failed': boot.failed if boot else 0, 'widening': boot.widening if boot else 1.0,
                    'widening_of_optimum': boot.of_optimum if boot else 1.0,
                    'clusters': boot.clusters if boot else int(len(np.unique(points.take(fitted).clusters)))},
      'holdout': _holdout(points, fitted, held, fit, boot) if held.any() else None,
      'compute_optimal': optimal and {
          'cost': cost.describe(), 'exponents': frontier.frontier_exponents(fit, boot, cost), 'rows': optimal},
      'isoflop': [{'flops': v.flops, 'params': v.optimum, 'params_ci95': v.interval, 'examples': v.examples_optimum,
                   'loss': v.optimum_loss, 'inside': v.inside, 'note': v.note} for v in valleys],
      'isoflop_exponent': growth,
      'diagnostics': {'gradient': fit.gradient, 'starts': fit.starts, 'starts_ended_here': fit.ended_here,
                      'second_optimum': fit.second, 'at_bound': list(fit.at_bound),
                      'exponents': list(fit.form.exponents), 'offset': fit.form.label_of_offset,
                      'condition': fit.condition,
                      'ridge': list(fit.ridge), 'ends_at_bound': boot.ends_at_bound() if boot else {},
                      'sigma': fit.sigma,
                      'equation': fit.form.equation(points.metric),
                      'formula': fit.form.formula, 'source': fit.form.source},
      'dropped': points.describe_dropped(),
      'notes': list(points.notes)}


def _budgets(points, cost):
  """Powers of ten from the lowest budget of the points to 100 times the highest, at most the last eight."""
  if not ('flops' in points.columns or {'params', 'examples'} <= points.columns.keys()):
    return np.empty(0)
  flops = flops_of(points, cost)
  powers = np.arange(np.floor(np.log10(flops.min())), np.ceil(np.log10(flops.max())) + 3)
  return 10.0 ** powers[-8:]


def _holdout(points, fitted, held, fit, boot):
  test, (name, size) = points.take(held), points.size
  predicted = fit.predict(test.columns)
  last, largest = persistence(size[fitted], points.y[fitted]), float(size[fitted].max())
  law, new = boot.bands(test.columns) if boot else (None, None)
  rows = []
  for i in range(len(test)):
    row = {'run': test.runs[i], 'size': float(size[held][i]), 'factor': float(size[held][i] / largest),
           'measured': float(test.y[i]), 'predicted': float(predicted[i]), 'persistence': last}
    if boot:
      row |= {'ci95': law[:, i].tolist(), 'ci95_run': new[:, i].tolist(),
              'inside': bool(new[0, i] <= test.y[i] <= new[1, i])}
    rows.append(row)
  log_error, log_last = np.log(predicted / test.y), np.log(last / test.y)
  new = boot.with_noise(boot.predictions(test.columns)) if boot else None
  tests = lights.holdout_tests(rows, new, test.clusters)
  return {'n': len(rows), 'size': name, 'rmsle': _rms(log_error), 'rmse': _rms(predicted - test.y),
          'rmsle_persistence': _rms(log_last), 'tests': tests, 'rows': rows}


def _rms(values):
  return float(np.sqrt(np.mean(np.square(values))))
