"""Batched bounded nonlinear fits: damped Gauss-Newton steps with exact derivatives.

Shapes: R fits, n points, p parameters. The fits share the points and differ in their starts and point weights, so a
thousand bootstrap refits take a few hundred array operations.
"""

import dataclasses

import numpy as np

from vit_jax.scaling.forms import Columns, Form

CONVERGED = 1e-9  # gradient component / sum of the points' absolute contributions to it
SETTLED = 1e-6  # the relative decrease of the objective below which a quick fit makes no progress


@dataclasses.dataclass(frozen=True)
class Objective:
  """The loss of a fit, summed (not averaged) over the points.

  Attributes:
    name: log_huber (Huber loss of log residuals; Hoffmann et al. 2022, equation 3), log_lsq (half the squared log
      residuals) or lsq (half the squared residuals).
    delta: the log residual at which the Huber loss becomes linear.
  """
  name: str = 'log_huber'
  delta: float = 1e-3

  @property
  def log(self) -> bool:
    return self.name != 'lsq'

  def residuals(self, value: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.log(value) - np.log(y) if self.log else value - y

  def rho(self, r: np.ndarray) -> np.ndarray:
    """The loss at residuals r."""
    if self.name != 'log_huber':
      return 0.5 * r * r
    size = np.abs(r)
    return np.where(size <= self.delta, 0.5 * r * r, self.delta * (size - 0.5 * self.delta))

  def psi(self, r: np.ndarray) -> np.ndarray:
    """The derivative of the loss at residuals r."""
    return np.clip(r, -self.delta, self.delta) if self.name == 'log_huber' else r


@dataclasses.dataclass(frozen=True)
class Minima:
  """The ends of R fits.

  Attributes:
    theta: [R, p], the parameters.
    value: [R], the objectives.
    gradient: [R], the relative projected gradients (see CONVERGED).
    settled: [R], whether a fit ended because it made no more progress (see `patience` of `minimize`).
  """
  theta: np.ndarray
  value: np.ndarray
  gradient: np.ndarray
  settled: np.ndarray


def score(form: Form, columns: Columns, y: np.ndarray, objective: Objective, theta: np.ndarray) -> np.ndarray:
  """The losses [S, n] of the points for parameters theta [S, p]."""
  return objective.rho(objective.residuals(form.model(theta, columns)[0], y))


def minimize(form: Form, columns: Columns, y: np.ndarray, objective: Objective, starts: np.ndarray,
             weights: np.ndarray, iterations: int = 300, settled: int | None = None,
             patience: int | None = None) -> Minima:
  """Minimizes the objective from each of R starts within the bounds of the form.

  A step solves (H + damping diag(H)) step = -g for the free parameters and is kept if it lowers the objective. For the
  Huber loss, H alternates between two approximations. One weights a point beyond delta by delta / |residual|, as
  iteratively reweighted least squares does; it is robust far from the minimum. The other, Newton's, gives such a point
  no weight; it is exact near the minimum.

  Args:
    form: the form, bound to the points.
    columns: the inputs, {name: [n]}.
    y: [n], the measured values.
    objective: the loss.
    starts: [R, p].
    weights: [R, n] or [n], factors of the points' losses.
    iterations: the maximum number of steps.
    settled: stop after this many iterations in which the lowest objective decreases by less than a fraction SETTLED.
      Only for fits that differ in nothing but their start.
    patience: end each fit after this many iterations in which its objective decreases by less than a fraction SETTLED,
      as in a flat valley, where parameters drift on and predictions no longer change.
  """
  theta = np.clip(starts, form.lower, form.upper)
  weights = np.broadcast_to(weights, (len(theta), len(y)))
  value, gradient = np.full(len(theta), np.inf), np.full(len(theta), np.inf)
  state = _Fits(form, columns, y, objective, theta, weights)
  open_fits, lowest, since = np.arange(len(theta)), np.inf, 0
  flat, mark = np.zeros(len(theta), bool), np.full(len(theta), np.inf)
  for iteration in range(iterations):
    done = state.step(newton=iteration % 2 == 1) if iteration else state.evaluate()
    theta[open_fits], value[open_fits], gradient[open_fits] = state.theta, state.value, state.gradient
    if value.min() < lowest * (1 - SETTLED):
      lowest, since = value.min(), iteration
    if patience and iteration % patience == 0:
      flat[open_fits] = np.isfinite(state.value) & (state.value >= mark[open_fits] * (1 - SETTLED))
      mark[open_fits] = state.value
      done = done | flat[open_fits]
    if done.all() or (settled and iteration - since >= settled):
      break
    if done.mean() > 0.1:
      open_fits, state = open_fits[~done], state.take(~done)
  return Minima(theta, value, gradient, flat)


class _Fits:
  """The fits that have not converged: their parameters, derivatives and damping."""

  def __init__(self, form, columns, y, objective, theta, weights):
    self.form, self.columns, self.y, self.objective = form, columns, y, objective
    self.theta, self.weights = theta.copy(), weights
    self.damping = np.full(len(theta), 1e-2)

  def evaluate(self):
    self.value, self.residual, self.jacobian = self._at(self.theta, self.weights)
    return self._measure()

  def take(self, keep):
    out = _Fits(self.form, self.columns, self.y, self.objective, self.theta[keep], self.weights[keep])
    out.damping, out.value, out.residual, out.jacobian = (
        a[keep] for a in (self.damping, self.value, self.residual, self.jacobian))
    out._measure()
    return out

  def step(self, newton: bool):
    hessian, diagonal = self._hessian(newton)
    new = np.clip(self.theta + _solve(hessian, diagonal, self.g, self.free, self.damping), self.form.lower,
                  self.form.upper)
    value, residual, jacobian = self._at(new, self.weights)
    better = value < self.value
    self.theta = np.where(better[:, None], new, self.theta)
    self.value = np.where(better, value, self.value)
    self.residual[better], self.jacobian[better] = residual[better], jacobian[better]
    self.damping = np.clip(np.where(better, self.damping / 5, self.damping * 4), 1e-15, 1e14)
    return self._measure()

  def _at(self, theta, weights):
    with np.errstate(all='ignore'):  # a step that is too long overflows; its objective is inf, so it is rejected
      value, jacobian = self.form.model(theta, self.columns)
      residual = self.objective.residuals(value, self.y)
      total = (weights * self.objective.rho(residual)).sum(1)
      if self.objective.log:
        jacobian = jacobian / value[:, None]
    ok = np.isfinite(total) & np.isfinite(jacobian).all((1, 2))
    return np.where(ok, total, np.inf), residual, jacobian

  def _measure(self):
    """Sets the gradient and the free parameters; returns which fits have converged or can make no further progress."""
    pull = self.weights * self.objective.psi(self.residual)
    self.g = np.matmul(self.jacobian, pull[:, :, None])[:, :, 0]
    low, high = self.theta <= self.form.lower, self.theta >= self.form.upper
    self.free = ~((low & (self.g > 0)) | (high & (self.g < 0)))
    scale = np.matmul(np.abs(self.jacobian), np.abs(pull)[:, :, None])[:, :, 0]
    # In an exact fit the residuals are rounding noise, and so is the gradient.
    unit = 1.0 if self.objective.log else self.form.y_max
    noise = np.matmul(np.abs(self.jacobian), (self.weights * 1e-11 * unit)[:, :, None])[:, :, 0]
    self.gradient = (self.free * np.abs(self.g) / (scale + noise + 1e-300)).max(1)
    self.gradient = np.where((np.abs(self.g) <= noise).all(1), 0.0, self.gradient)
    return (self.gradient < CONVERGED) | (self.damping >= 1e13) | ~np.isfinite(self.value)

  def _hessian(self, newton):
    rows = self.weights
    if self.objective.name == 'log_huber':
      size, delta = np.maximum(np.abs(self.residual), 1e-300), self.objective.delta
      safe = self.weights * np.minimum(1, delta / size)
      rows = self.weights * (size <= delta) if newton else safe
      diagonal = np.matmul(self.jacobian ** 2, safe[:, :, None])[:, :, 0]
    hessian = np.matmul(self.jacobian * rows[:, None], self.jacobian.transpose(0, 2, 1))
    if self.objective.name != 'log_huber':
      diagonal = np.einsum('rii->ri', hessian)
    return hessian, diagonal + 1e-300


def _solve(hessian, diagonal, gradient, free, damping):
  """-(H + damping diag)^-1 g for the free parameters and 0 for the others, solved in units of the diagonal."""
  scale = np.sqrt(diagonal)
  free = free & np.isfinite(scale) & (scale > 0)
  unit = np.where(free, scale, 1.0)
  matrix = hessian / unit[:, :, None] / unit[:, None, :]
  matrix = matrix * (free[:, :, None] & free[:, None, :])
  eye = np.eye(matrix.shape[-1])
  matrix = matrix + eye * (np.where(free, damping[:, None] + 1e-14, 1.0))[:, None, :]
  step = np.linalg.solve(matrix, -(gradient / unit * free)[:, :, None])[:, :, 0]
  return step / unit
