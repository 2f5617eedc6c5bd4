"""One law of several groups, in which some coefficients are the same for all groups, and a test of which differ.

The groups are fitted together. A coefficient that is shared is one parameter, any other is one for each group. All
groups have the parametrisation that the form has on the points of all, so that a parameter means the same in each.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_jax.errors import UserError, nearest
from vit_jax.scaling import bootstrap, checks, estimate
from vit_jax.scaling.bootstrap import Bootstrap, Refits
from vit_jax.scaling.estimate import Fit
from vit_jax.scaling.forms import Columns, Form
from vit_jax.scaling.minimize import Minima, Objective
from vit_jax.scaling.points import Points

GROUP = '_group'  # the column with the number of a point's group, from 1
DIFFERS = 0.01  # p below which a shared coefficient is said to differ


@dataclasses.dataclass(frozen=True)
class Together:
  """The fit of all groups.

  Attributes:
    fits: {group: its law, with the refits of the joint bootstrap}.
    summary: the entry `shared` of law.json: {coefficients {name: {value, ci95}}, separate, n, objective, tests,
      words, warnings}.
  """
  fits: dict[str, tuple[Fit, Bootstrap | None]]
  summary: dict

  def describe(self) -> str:
    """What the groups have in common, as `alpha and beta shared`."""
    return f'{" and ".join(self.summary["coefficients"]) or "nothing"} shared'


def names(cls: type[Form], share: Sequence[str], separate: Sequence[str]) -> tuple[str, ...]:
  """The shared coefficients, from --share or --separate.

  Raises:
    UserError: both are given, or a coefficient that the form does not have.
  """
  flag, given = ('share', share) if share else ('separate', separate)
  if share and separate:
    raise UserError(f'--share={",".join(share)} --separate={",".join(separate)}: expected one of the two')
  for name in given:
    if name not in cls.names:
      raise UserError(f'--{flag}={",".join(given)}: {name} is no coefficient of --form={cls.name}'
                      f'{nearest(name, cls.names)}')
  return tuple(name for name in cls.names if (name in given) == bool(share))


def fit(groups: dict[str, Points], weights: dict[str, np.ndarray], cls: type[Form], shared: tuple[str, ...],
        objective: Objective, replicates: int, seed: int) -> Together:
  """Fits a form to several groups at once.

  Args:
    groups: {group: the points to fit}, two or more.
    weights: {group: factors of the points' losses}.
    cls: the form.
    shared: the coefficients that all groups have in common.
    objective: the loss.
    replicates: refits to resampled runs; runs are resampled within each group.
    seed: the seed of the resampling.

  Raises:
    UserError: one group, a shared coefficient that depends on one that is not, or see `estimate.fit`.
  """
  if len(groups) < 2:
    raise UserError(f'--share and --separate: expected two groups or more, got {", ".join(groups) or "none"}')
  for name, points in groups.items():
    try:
      estimate.check(cls, points.columns, points.y, objective)
    except UserError as error:
      raise UserError(f'--group, {name}: {error}') from error
  columns, y, weight, clusters = _pooled(groups, weights, cls)
  alone = _alone(cls, columns, y, weight, objective)
  joint = _form(cls, tuple(groups), shared, columns, y, alone)
  found = estimate.fit(joint, columns, y, objective, weight)
  boot = bootstrap.run(found, clusters, replicates, seed, strata=columns[GROUP])
  fits = {name: _of_group(found, boot, g) for g, name in enumerate(groups)}
  return Together(fits, _summary(found, boot, clusters, alone))


class Joint(Form):
  """A form of several groups; see the module. The parameters are those of the groups one after another, each once.

  Attributes:
    base: the form of one group.
    groups: the names of the groups.
    shared: the shared coefficients.
    alone: [G, p], the parameters of the groups when each is fitted on its own.
  """
  source, exponents, inputs = '', (), (GROUP,)
  base: type[Form]
  groups: tuple[str, ...]
  shared: tuple[str, ...]
  alone: np.ndarray

  def __init__(self, columns: Columns, y: np.ndarray):
    common = _common(self.base, columns, y)
    self.where = [columns[GROUP] == g + 1 for g in range(len(self.groups))]
    self.parts = [common(_take(columns, rows), y[rows]) for rows in self.where]
    self.index = _places(self.base, len(self.groups), self.shared)
    super().__init__(columns, y)
    self.lower, self.upper = np.full(len(self.parameters), np.inf), np.full(len(self.parameters), -np.inf)
    for part, index in zip(self.parts, self.index):
      self.lower[index] = np.minimum(self.lower[index], part.lower)
      self.upper[index] = np.maximum(self.upper[index], part.upper)

  def _bounds(self, parameter, columns):
    return 0.0, 0.0  # those of the groups' forms replace these

  def model(self, theta, columns):
    rows = len(columns[GROUP])
    value, jacobian = np.zeros((len(theta), rows)), np.zeros((len(theta), len(self.parameters), rows))
    for g, (part, index) in enumerate(zip(self.parts, self.index)):
      here = np.flatnonzero(columns[GROUP] == g + 1)
      value[:, here], inner = part.model(theta[:, index], _take(columns, here))
      jacobian[:, index[:, None], here] = inner
    return value, jacobian

  def natural(self, theta):
    out = np.zeros((len(theta), len(self.names)))
    places = _places(self.base, len(self.groups), self.shared)
    for part, index in zip(self.parts, places):
      order = [self.base.labels.index(name) for name in self.base.names]
      out[:, index[order]] = part.natural(theta[:, index])
    return out

  def starts(self, columns, y, weights):
    each = [part.starts(_take(columns, rows), y[rows], weights[rows]) for part, rows in zip(self.parts, self.where)]
    found = np.stack(each, 1)  # [S, G, p]
    found = np.concatenate([self.alone[None], *(np.broadcast_to(one, (1, *self.alone.shape)) for one in self.alone),
                            found])
    theta = np.zeros((len(found), len(self.parameters)))
    for g, index in enumerate(self.index):
      of_all = np.array([label in self.shared for label in self.base.labels])
      theta[:, index] = np.where(of_all, found.mean(1), found[:, g])
    return np.clip(theta, self.lower, self.upper)


def _places(cls, groups, shared):
  """The index of each group's parameters in those of all, [G, p]; the same for shared ones."""
  out, following = np.zeros((groups, len(cls.labels)), int), 0
  for g in range(groups):
    for i, label in enumerate(cls.labels):
      out[g, i] = out[0, i] if g and label in shared else following
      following += not (g and label in shared)
  return out


def _form(cls, groups, shared, columns, y, alone):
  places = _places(cls, len(groups), shared)
  labels = [''] * (places.max() + 1)
  for group, index in zip(groups, places):
    for label, i in zip(cls.labels, index):
      labels[i] = label if label in shared else f'{label}[{group}]'
  parameters = [''] * len(labels)
  for index in places:
    for parameter, i in zip(cls.parameters, index):
      parameters[i] = parameter
  form = type('Joint', (Joint,), {
      'base': cls, 'groups': groups, 'shared': shared, 'alone': alone, 'name': cls.name, 'formula': cls.formula,
      'inputs': (*cls.inputs, GROUP), 'ordinal': (*cls.ordinal, GROUP),
      'names': tuple(labels), 'labels': tuple(labels), 'parameters': tuple(parameters)})
  for name in shared:
    if on := _depends(cls, columns, y, name) - set(shared):
      raise UserError(f'--share: {name} means the same in all groups only where {" and ".join(sorted(on))} does: share '
                      f'{"it" if len(on) == 1 else "them"} too, or leave {name} separate')
  return form


def _depends(cls, columns, y, name):
  """The other coefficients whose parameters move the natural value of one, as an exponent moves its amplitude."""
  form = _common(cls, columns, y)(columns, y)
  theta = form.start_grid()[:1] * 0 + 0.5 * (np.maximum(form.lower, -20) + np.minimum(form.upper, 20))
  moved, k = set(), cls.names.index(name)
  for i, label in enumerate(cls.labels):
    if label != name:
      step = 1e-3 * (np.arange(theta.shape[1]) == i)
      a, b = (form.natural(theta + sign * step)[0, k] for sign in (-1, 1))
      moved |= {label} if abs(b - a) > 1e-9 * abs(a) else set()
  return moved


def _common(cls, columns, y):
  """The form with the parametrisation that it has on all points, but with the irreducible part of its own points."""
  whole = cls({name: columns[name] for name in cls.inputs}, y)

  class Common(cls):

    def __init__(self, columns, y):
      super().__init__(columns, y)
      own, lower, upper = self.y_min, self.lower, self.upper
      self.__dict__.update(whole.__dict__)
      apart = np.array([parameter.partition('_')[0] == 'offset' for parameter in self.parameters])
      self.lower, self.upper = np.where(apart, lower, whole.lower), np.where(apart, upper, whole.upper)
      self.y_min = own

  return Common


def _pooled(groups, weights, cls):
  """The columns, values, weights and clusters of all groups' points, one group after another."""
  columns = {name: np.concatenate([points.columns[name] for points in groups.values()]) for name in cls.inputs}
  columns[GROUP] = np.concatenate([np.full(len(points), g + 1.0) for g, points in enumerate(groups.values())])
  clusters = np.concatenate([points.clusters for points in groups.values()])
  pairs = np.stack([columns[GROUP], clusters], 1)
  return (columns, np.concatenate([points.y for points in groups.values()]),
          np.concatenate([weights[name] for name in groups]), np.unique(pairs, axis=0, return_inverse=True)[1].ravel())


def _alone(cls, columns, y, weights, objective):
  """[G, p], the parameters of each group fitted on its own, in the common parametrisation."""
  common, out = _common(cls, columns, y), []
  for g in np.unique(columns[GROUP]):
    rows = columns[GROUP] == g
    out.append(estimate.fit(common, _take(columns, rows), y[rows], objective, weights[rows], exact=False).theta)
  return np.array(out)


def _take(columns, rows):
  return {name: values[rows] for name, values in columns.items()}


def _of_group(joint, boot, g):
  """The law of one group, and its refits."""
  form, index = joint.form.parts[g], joint.form.index[g]
  rows, theta = joint.form.where[g], joint.theta[index]
  columns = {name: joint.columns[name][rows] for name in form.inputs}
  value = float(np.sum(joint.weights[rows] * joint.objective.rho(joint.residuals[rows])))
  minima = Minima(theta[None], np.array([value]), np.array([joint.gradient]), np.array([False]))
  none = np.zeros((0, len(theta))), np.zeros((0, int(rows.sum())))
  found = estimate.describe(form, joint.objective, columns, joint.y[rows], joint.weights[rows], minima, 0, *none)
  found = dataclasses.replace(found, starts=joint.starts, ended_here=joint.ended_here)
  if boot is None:
    return found, None
  refits = Refits(form, np.concatenate([part.theta[:, index] for part in boot.parts]))
  return found, Bootstrap(found, (refits,), bootstrap.noise(found), boot.failed, boot.clusters, boot.seed, paired=True)


def _summary(joint, boot, clusters, alone):
  form, interval = joint.form, boot.interval() if boot else {}
  tests = [_test(joint, name, clusters, alone) for name in form.base.names]
  values = {name: {'value': joint.coefficients[name], 'ci95': interval.get(name)} for name in form.shared}
  return {'coefficients': values,
          'separate': [name for name in form.base.names if name not in form.shared], 'n': len(joint.y),
          'objective': joint.value, 'tests': tests, 'words': _describe(tests),
          'warnings': [f'{test["name"]} is shared, but differs between the groups (p = {test["p"]:.1g}): --share '
                       'without it fits them better' for test in tests if test['shared'] and _differs(test)]}


def _differs(test):
  return test['p'] is not None and test['p'] < DIFFERS


def _test(joint, name, clusters, alone):
  """Whether a coefficient differs between groups: {name, shared, f, p, why}; p is None where it cannot be tested.

  The law is fitted with the coefficient shared. The test is of the derivatives in it, group by group, as added terms
  (a score test). A coefficient is shared as what it is in the sources' notation.
  """
  form, found = joint.form, joint
  out = {'name': name, 'shared': name in form.shared, 'f': None, 'p': None}
  if name not in form.shared:
    shared = tuple(n for n in form.base.names if n in form.shared or n == name)
    if on := _depends(form.base, joint.columns, joint.y, name) - set(shared):
      return out | {'why': f'depends on {" and ".join(sorted(on))}, which is separate'}
    cls = _form(form.base, form.groups, shared, joint.columns, joint.y, alone)
    found = estimate.fit(cls, joint.columns, joint.y, joint.objective, joint.weights, exact=False)
  slope = checks.slopes(found)[:, found.form.labels.index(name)]
  terms = np.stack([slope * rows for rows in found.form.where], 1)
  test = checks.added(found, np.zeros((len(found.y), 0)), terms, list(form.groups), clusters)
  return out | ({'why': 'too few points'} if test is None else {'f': test.f, 'p': test.p, 'why': ''})


def _describe(tests):
  """A sentence on which coefficients differ between the groups."""
  found = collections.defaultdict(list)
  for test in tests:
    if test['p'] is not None:
      found[_differs(test)].append(f'{test["name"]} (p = {test["p"]:.2g})')
  parts = [f'{", ".join(found[differ])} {words}' for differ, words in (
      (True, 'differ between the groups'), (False, 'may be the same')) if found[differ]]
  return '; '.join(parts) or 'no coefficient can be tested'
