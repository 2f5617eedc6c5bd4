"""Fitting a form: a scored start grid, refinement of the best starts with exact derivatives, and diagnostics."""

import dataclasses

import numpy as np

from vit_jax.errors import UserError, nearest
from vit_jax.scaling import forms, forms_special
from vit_jax.scaling.checks import outliers
from vit_jax.scaling.forms import Columns, Form
from vit_jax.scaling.minimize import CONVERGED, Minima, Objective, minimize, score

FORMS = {form.name: form for form in (
    forms.Power, forms.PowerOffset, forms.ShiftedPower, forms_special.M4, forms.Zhai, forms_special.BrokenPower,
    forms.Chinchilla, forms.ChinchillaTied, forms.Overtrain, forms_special.DataConstrained)}
OBJECTIVES = ('log_huber', 'log_lsq', 'lsq')
REFINED = 32  # the number of starts that are refined
SETTLED_AFTER = 20  # iterations without progress that end a quick fit; see `minimize.minimize`
TIED = 1e-9  # relative; minima that are closer are told apart by rounding alone
GRADIENT_LIMIT = 1e-3  # relative to the points' absolute contributions; a fit above it is refused
RIDGE = 0.25  # the weight of a coefficient in the weakest direction above which it is named
CONDITION_LIMIT = 1e3  # of the Jacobian with columns of unit length; above it coefficients trade off against each other
_NONE = 1e300  # the loss of a point at which the form has no value


@dataclasses.dataclass(frozen=True)
class Fit:
  """A form fitted to n points.

  Attributes:
    theta: [p], the fitted parameters (see `Form`). `coefficients` are the same values in the source's notation.
    value: the objective, summed over the points.
    gradient: the largest component of the projected gradient, relative to the points' absolute contributions to it.
    sigma: the standard deviation of the residuals but for outliers, with their number - p degrees of freedom.
    outliers: bool [n], the points that are far off the law (see `checks.outliers`).
    residuals: [n], ln(measured) - ln(predicted), or measured - predicted if the objective is lsq.
    starts: the number of starts scored.
    ended_here: the number of refined starts that converged to this optimum.
    optima: [O, p], this optimum and at most two others.
    start_theta: [S, p], the start grid.
    start_losses: [S, n], the loss of each point at each start.
    second: the next best optimum, {coefficients, excess}, where excess is the relative increase of the objective; None
      if every refined start converged to this optimum.
    at_bound: the coefficients that ended at a bound.
    condition: the condition number of the Jacobian (see CONDITION_LIMIT).
    ridge: the coefficients that trade off against each other, by the Jacobian's weakest direction.
    warnings: sentences for the user.
  """
  form: Form
  objective: Objective
  columns: dict[str, np.ndarray]
  y: np.ndarray
  weights: np.ndarray
  theta: np.ndarray
  value: float
  gradient: float
  sigma: float
  outliers: np.ndarray
  residuals: np.ndarray
  starts: int
  ended_here: int
  optima: np.ndarray
  start_theta: np.ndarray
  start_losses: np.ndarray
  second: dict | None
  at_bound: tuple[str, ...]
  condition: float
  ridge: tuple[str, ...]
  warnings: tuple[str, ...]

  @property
  def coefficients(self) -> dict[str, float]:
    return dict(zip(self.form.names, map(float, self.form.natural(self.theta[None])[0])))

  def predict(self, columns: Columns, theta: np.ndarray | None = None) -> np.ndarray:
    """Predictions [m] at `columns`, or [R, m] for parameters theta [R, p]."""
    value = self.form.model(self.theta[None] if theta is None else theta, columns)[0]
    return value[0] if theta is None else value

  def factor(self, columns: Columns) -> np.ndarray:
    """The sizes at `columns` over that of the largest fitted point, [m], by the product of the inputs."""
    size = lambda at: np.prod(np.broadcast_arrays(*(at[name] for name in self.form.sizes)), axis=0)
    return size(columns) / size(self.columns).max()

  @property
  def irreducible(self) -> float:
    """The limit of the form for infinite x (or N and D); 0 for a form without one."""
    if self.form.offset is not None:
      return float(self.theta[self.form.offset])
    coefficients = self.coefficients
    if 'g' in coefficients:
      return coefficients['b'] * coefficients['g'] ** coefficients['c']
    return coefficients.get('e', 0.0)


def fit(name: str | type[Form], columns: Columns, y: np.ndarray, objective: Objective = Objective(),
        weights: np.ndarray | None = None, exact: bool = True) -> Fit:
  """Fits a form to points.

  Args:
    name: the form, a key of FORMS or a class, such as `written.form` makes.
    columns: the inputs, {name: [n]}.
    y: [n], the values to predict, above 0.
    objective: the loss of the fit.
    weights: [n], factors of the points' losses; default: ones.
    exact: whether to continue the refinement in a flat valley and to check the gradient. Without it a fit is faster,
      and its predictions are the same.

  Raises:
    UserError: an unknown form or objective, a missing column, too few points, an input that does not vary, points at
      which the form has no value, or no convergence.
  """
  cls = form_class(name)
  check(cls, columns, y, objective)
  columns = {key: np.asarray(columns[key], float) for key in cls.inputs}
  y, weights = np.asarray(y, float), np.ones(len(y)) if weights is None else np.asarray(weights, float)
  form = cls(columns, y)
  theta = form.starts(columns, y, weights / y ** 2 if objective.log else weights)
  with np.errstate(all='ignore'):
    losses = score(form, columns, y, objective, theta)
    losses = np.where(np.isfinite(losses), losses, _NONE)
  if (nowhere := (losses == _NONE).all(0)).any():
    where = ', '.join(f'{key}={columns[key][np.argmax(nowhere)]:.6g}' for key in columns)
    raise UserError(f'--form={cls.name}: has no value {"above 0 " if objective.log else ""}at {nowhere.sum()} of '
                    f'{len(y)} points, such as {where}, from any of {len(theta)} starts')
  scores = losses @ weights
  order = np.argsort(scores)
  picked = theta[order[_spread(len(order))]]
  minima = minimize(form, columns, y, objective, picked, weights, settled=None if exact else SETTLED_AFTER)
  best = _best(form, columns, y, objective, minima)
  if exact and minima.gradient[best] >= CONVERGED:  # a flat valley: refine the best one further
    last = minimize(form, columns, y, objective, minima.theta[[best]], weights, iterations=5000)
    for whole, part in zip((minima.theta, minima.value, minima.gradient), (last.theta, last.value, last.gradient)):
      whole[best] = part[0]
  if exact and not minima.gradient[best] < GRADIENT_LIMIT:
    raise UserError(f'--form={cls.name}: no minimum found from {len(theta)} starts: expected a relative gradient below '
                    f'{GRADIENT_LIMIT:g}, got {minima.gradient[best]:.2g} at the best point. Try another --objective, '
                    'or a form with fewer coefficients')
  return describe(form, objective, columns, y, weights, minima, best, theta, losses)


def _best(form, columns, y, objective, minima):
  """The index of the lowest minimum; of those that only rounding tells apart, that with the least squares.

  Many points at few inputs have no single line of least absolute residuals, which is what a small delta asks for.
  """
  tied = np.flatnonzero(minima.value <= minima.value.min() * (1 + TIED))
  with np.errstate(all='ignore'):
    residuals = objective.residuals(form.model(minima.theta[tied], columns)[0], y)
  return int(tied[np.argmin(np.nan_to_num(np.sum(residuals ** 2, axis=1), nan=np.inf))])


def form_class(name: str | type[Form]) -> type[Form]:
  """The form called `name`; a class is returned as it is.

  Raises:
    UserError: an unknown name; the message suggests the nearest one.
  """
  if isinstance(name, type):
    return name
  if name not in FORMS:
    raise UserError(f'--form={name}: unknown form{nearest(name, FORMS)}')
  return FORMS[name]


def check(cls: type[Form], columns: Columns, y: np.ndarray, objective: Objective) -> None:
  """Raises UserError if fitting `cls` to these points would be meaningless."""
  if objective.name not in OBJECTIVES:
    raise UserError(f'--objective={objective.name}: unknown objective{nearest(objective.name, OBJECTIVES)}')
  if objective.name == 'log_huber' and not objective.delta > 0:
    raise UserError(f'--delta={objective.delta}: expected a number above 0')
  for name in cls.inputs:
    if name not in columns:
      raise UserError(f'--form={cls.name} needs the column {name!r}{nearest(name, columns)}')
  needed = len(cls.parameters) + 1
  if len(y) < needed:
    raise UserError(f'--form={cls.name} has {len(cls.parameters)} coefficients and needs at least {needed} points; '
                    f'there are {len(y)}')
  for name in cls.inputs:
    if len(np.unique(columns[name])) < 2 and name != 'unique_examples':
      raise UserError(f'--form={cls.name}: {name} is {columns[name][0]:g} in all {len(y)} points; it must vary')


def _spread(n: int) -> np.ndarray:
  """Ranks of the starts to refine: the first REFINED / 2, and as many spaced geometrically over the rest."""
  tail = np.geomspace(REFINED // 2, max(n - 1, REFINED), REFINED // 2).astype(int)
  return np.unique(np.minimum(np.concatenate([np.arange(REFINED // 2), tail]), n - 1))


def describe(form: Form, objective: Objective, columns: Columns, y: np.ndarray, weights: np.ndarray, minima: Minima,
             best: int, starts: np.ndarray, losses: np.ndarray) -> Fit:
  """The fit at the minimum `best` of `minima`, which were found from `starts` [S, p] with losses [S, n]."""
  theta, value = minima.theta[best], float(minima.value[best])
  predicted, jacobian = (a[0] for a in form.model(theta[None], columns))
  residuals = -objective.residuals(predicted, y)
  outlying = outliers(residuals * np.sqrt(weights), len(theta))
  kept = weights * ~outlying
  freedom = max(int((~outlying).sum()) - len(theta), 1)
  sigma = float(np.sqrt(np.sum(kept * residuals ** 2) / np.mean(weights) / freedom))
  same = _same(form, columns, minima, best, sigma / (1.0 if objective.log else form.y_middle))
  bound = (theta <= form.lower) | (theta >= form.upper)
  jacobian = jacobian / predicted if objective.log else jacobian
  condition, weakest = _condition(jacobian[~bound] * np.sqrt(weights))
  at_bound = tuple(np.array(form.labels)[bound].tolist())
  ridge = tuple(np.array(form.labels)[~bound][np.abs(weakest) > RIDGE].tolist())
  second = _second(form, minima, best, same)
  optima = np.concatenate([theta[None], minima.theta[~same][np.argsort(minima.value[~same])[:2]]])
  out = Fit(form, objective, columns, y, weights, theta, value, float(minima.gradient[best]), sigma, outlying,
            residuals, len(starts), int(same.sum()), optima, starts, losses, second, at_bound, condition, ridge, ())
  return dataclasses.replace(out, warnings=tuple(_warnings(out, len(same))))


def _same(form, columns, minima, best, sigma):
  """Whether each refined start ended in the best optimum: its predictions differ by less than 1% of the noise."""
  with np.errstate(all='ignore'):
    values = form.model(minima.theta, columns)[0]
    return np.abs(np.log(values / values[best])).max(1) < max(1e-6, 0.01 * sigma)


def _second(form, minima, best, same):
  others = np.flatnonzero(~same & np.isfinite(minima.value))
  if not len(others):
    return None
  second = others[np.argmin(minima.value[others])]
  coefficients = form.natural(minima.theta[second][None])[0]
  return {'coefficients': dict(zip(form.names, map(float, coefficients))),
          'excess': max(float(minima.value[second] / max(minima.value[best], 1e-300)) - 1, 0.0)}


def _condition(jacobian):
  """The condition number of a Jacobian [p, n] with rows scaled to unit length, and its weakest direction [p].

  The number is inf if a row is zero.
  """
  length = np.linalg.norm(jacobian, axis=1, keepdims=True)
  if not len(jacobian) or not np.all(length > 0):
    return (float('inf') if len(jacobian) else 1.0), (length[:, 0] == 0).astype(float)
  vectors, values, _ = np.linalg.svd(jacobian / length, full_matrices=False)
  return float(values[0] / max(values[-1], 1e-300)), vectors[:, -1]


def _warnings(out, refined):
  form = out.form
  for i, label in enumerate(form.labels):
    if label in out.at_bound:
      yield _describe_bound(form.parameters[i], label, out.theta[i] <= form.lower[i])
  if out.second and out.second['excess'] < 0.01:
    values = ', '.join(f'{k} {v:.3g}' for k, v in out.second['coefficients'].items())
    yield f'a second optimum fits nearly as well (objective {100 * out.second["excess"]:.2g}% higher): {values}'
  if out.ended_here == 1 < refined:
    yield f'only one of {refined} refined starts reached the best optimum'
  if out.condition > CONDITION_LIMIT:
    yield (f'{" and ".join(out.ridge)} trade off against each other (condition number {out.condition:.2g}): do not '
           'interpret single coefficients; predictions inside the fitted range can still be good')
  if len(out.y) < 2 * len(out.theta):
    yield f'{len(out.y)} points for {len(out.theta)} coefficients: fewer than two points per coefficient'


def _describe_bound(parameter, label, low):
  kind = parameter.partition('_')[0]
  if kind == 'offset':
    return f'{label} is 0: the data show no irreducible part' if low else f'{label} is at its upper bound'
  if kind == 'log' and low:
    return f'the term with {label} vanishes: the data show no sign of it'
  if kind == 'shift':
    return f'{label} is 0: the data show no shift' if low else f'{label} is at its upper bound: no power law is visible'
  return f'{label} is at its {"lower" if low else "upper"} bound: the data do not identify it'
