"""Many small bounded non-linear fits at once: damped Gauss-Newton steps with exact derivatives.

Shapes: R fits, n points, p parameters. All R fits share the points and differ in their start and their row weights, so
that a thousand bootstrap refits are a few hundred array operations.
"""

import dataclasses

import numpy as np

from vit_jax.scaling.forms import Columns, Form

CONVERGED = 1e-9  # of the sum of the absolute contributions of the points to a gradient component
SETTLED = 1e-6  # relative fall of the objective below which a forecast's fit stands still


@dataclasses.dataclass(frozen=True)
class Objective:
  """What is summed (never averaged) over the points.

  name: log_huber (Huber loss of log residuals, Hoffmann et al. 2022, equation 3), log_lsq (half the squared log
    residuals) or lsq (half the squared residuals).
  delta: where the Huber loss turns linear, in units of the log loss.
  """
  name: str = 'log_huber'
  delta: float = 1e-3

  @property
  def log(self) -> bool:
    return self.name != 'lsq'

  def residuals(self, value: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.log(value) - np.log(y) if self.log else value - y

  def rho(self, r: np.ndarray) -> np.ndarray:
    """The loss of each residual."""
    if self.name != 'log_huber':
      return 0.5 * r * r
    size = np.abs(r)
    return np.where(size <= self.delta, 0.5 * r * r, self.delta * (size - 0.5 * self.delta))

  def psi(self, r: np.ndarray) -> np.ndarray:
    """Its derivative."""
    return np.clip(r, -self.delta, self.delta) if self.name == 'log_huber' else r


@dataclasses.dataclass(frozen=True)
class Minima:
  """theta [R, p], value [R] (the summed objective), gradient [R] (projected, relative: see CONVERGED)."""
  theta: np.ndarray
  value: np.ndarray
  gradient: np.ndarray


def score(form: Form, columns: Columns, y: np.ndarray, objective: Objective, theta: np.ndarray) -> np.ndarray:
  """The loss of each point at each of S parameter vectors: [S, n]."""
  return objective.rho(objective.residuals(form.model(theta, columns)[0], y))


def minimize(form: Form, columns: Columns, y: np.ndarray, objective: Objective, starts: np.ndarray,
             weights: np.ndarray, iterations: int = 300, settled: int | None = None) -> Minima:
  """Refines R starts [R, p] under row weights [R, n] (or [n]) inside the form's bounds.

  A step solves (H + damping diag(H)) step = -g on the parameters that are free; it is kept where the objective falls.
  For the Huber loss H counts the points inside delta in full and the others with delta / |residual| (the majorizer
  that iterated re-weighting uses) on odd iterations and not at all on even ones (Newton's): the first is safe far
  from the minimum, the second exact near it. With `settled`, for fits that differ in their start alone, it ends once
  the lowest objective has not fallen by more than SETTLED of itself in so many iterations.
  """
  theta = np.clip(starts, form.lower, form.upper)
  weights = np.broadcast_to(weights, (len(theta), len(y)))
  value, gradient = np.full(len(theta), np.inf), np.full(len(theta), np.inf)
  state = _Fits(form, columns, y, objective, theta, weights)
  open_fits, lowest, since = np.arange(len(theta)), np.inf, 0
  for iteration in range(iterations):
    done = state.step(newton=iteration % 2 == 1) if iteration else state.evaluate()
    theta[open_fits], value[open_fits], gradient[open_fits] = state.theta, state.value, state.gradient
    if value.min() < lowest * (1 - SETTLED):
      lowest, since = value.min(), iteration
    if done.all() or (settled and iteration - since >= settled):
      break
    if done.mean() > 0.1:
      open_fits, state = open_fits[~done], state.take(~done)
  return Minima(theta, value, gradient)


class _Fits:
  """The fits that have not converged yet: their parameters, derivatives and damping."""

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
    with np.errstate(all='ignore'):  # a step too far overflows: its objective is then infinite, and it is not taken
      value, jacobian = self.form.model(theta, self.columns)
      residual = self.objective.residuals(value, self.y)
      total = (weights * self.objective.rho(residual)).sum(1)
      if self.objective.log:
        jacobian = jacobian / value[:, None]
    ok = np.isfinite(total) & np.isfinite(jacobian).all((1, 2))
    return np.where(ok, total, np.inf), residual, jacobian

  def _measure(self):
    """Gradient, free parameters and who has converged (or cannot be moved any further)."""
    pull = self.weights * self.objective.psi(self.residual)
    self.g = np.matmul(self.jacobian, pull[:, :, None])[:, :, 0]
    low, high = self.theta <= self.form.lower, self.theta >= self.form.upper
    self.free = ~((low & (self.g > 0)) | (high & (self.g < 0)))
    scale = np.matmul(np.abs(self.jacobian), np.abs(pull)[:, :, None])[:, :, 0]
    # Rounding of the residuals: where the points are met exactly, their pulls are noise.
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
  """-(H + damping diag)^-1 g on the free parameters, 0 on the others; solved in units of the diagonal."""
  scale = np.sqrt(diagonal)
  free = free & np.isfinite(scale) & (scale > 0)
  unit = np.where(free, scale, 1.0)
  matrix = hessian / unit[:, :, None] / unit[:, None, :]
  matrix = matrix * (free[:, :, None] & free[:, None, :])
  eye = np.eye(matrix.shape[-1])
  matrix = matrix + eye * (np.where(free, damping[:, None] + 1e-14, 1.0))[:, None, :]
  step = np.linalg.solve(matrix, -(gradient / unit * free)[:, :, None])[:, :, 0]
  return step / unit
