"""The two forms that are not sums of powers: m4, an implicit equation, and the data-constrained law."""

import numpy as np

from vit_jax.scaling.forms import EXPONENTS, Form, grid

WIDTHS = 0.2, 10.0  # of a break, in e-folds of x


class M4(Form):
  name, formula = 'm4', '(y - e) / (e0 - y)^a = b x^c'
  source = 'M4 of Alabdulmohsin et al. 2022 (arXiv 2209.06640), equation 4, solved for y'
  names = ('e', 'e0', 'a', 'b', 'c')
  # ceiling is log(e0 / y_max - 1), bend is log a, and log_b is the log of y - e in the middle of the data without a
  # ceiling. If the data show neither ceiling nor bend, these two drift to a bound and leave the others unchanged.
  parameters = ('offset', 'ceiling', 'bend', 'log_b', 'decay')
  labels, exponents = ('e', 'e0', 'a', 'b', 'c'), ('a', 'c')

  def model(self, theta, columns):
    # With y = e + (e0 - e) s and s = sigmoid(z), the form is log s - a log(1 - s) = level(x). Solve for z.
    e, e0, a, log_b, decay = (v[:, None] for v in self._values(theta))
    x, span = self._log(columns, 'x'), e0 - e
    z = _solve(log_b - np.log(span / self.y_middle) - decay * x, a)
    s, rest = _sigmoid(z), _sigmoid(-z)
    slope = span * s * rest / (rest + a * s)  # dy / d level
    jacobian = [rest + slope / span, (s - slope / span) * (e0 - self.y_max), -slope * np.logaddexp(0, z) * a, slope,
                -x * slope]
    return e + span * s, np.stack(np.broadcast_arrays(*jacobian), 1)

  def natural(self, theta):
    e, e0, a, log_b, decay = self._values(theta)
    log_b = log_b + np.log(self.y_middle) + decay * np.log(self.reference['x']) - a * np.log(e0 - e)
    return np.stack([e, e0, a, np.exp(log_b), -decay], -1)

  def _values(self, theta):
    e, ceiling, bend, log_b, decay = theta.T
    return e, self.y_max * (1 + np.exp(ceiling)), np.exp(bend), log_b, decay

  def starts(self, columns, y, weights):
    start = grid(self.y_min * np.array([0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999]),
                 np.log([0.001, 0.01, 0.03, 0.1, 0.3, 1, 4, 19]), np.log([0.05, 0.2, 0.5, 1, 2, 4]), [0], [0])
    e, e0, a, _, _ = (v[:, None] for v in self._values(start))
    s, x = (y - e) / (e0 - e), self._log(columns, 'x')
    line = np.log(y - e) - a * np.log1p(-s) - np.log(self.y_middle)  # = log_b - decay x, by least squares
    w = weights * s * s  # the error of log(y - e) is the error of y divided by y - e
    centre, mean = (w * x).sum(1) / w.sum(1), (w * line).sum(1) / w.sum(1)
    dx = x - centre[:, None]
    start[:, 4] = -(w * dx * (line - mean[:, None])).sum(1) / (w * dx * dx).sum(1)
    start[:, 3] = mean + start[:, 4] * centre
    return np.clip(start, self.lower, self.upper)

  def _bounds(self, parameter, columns):
    return {'offset': (0.0, self.y_min), 'ceiling': np.log([1e-6, 100]), 'bend': np.log([0.02, 20]),
            'log_b': (-60.0, 60.0), 'decay': (1e-3, 10.0)}[parameter]


class BrokenPower(Form):
  """One smooth break between two exponents. `power`, `power_offset` and `shifted_power` are cases of it.

  On logarithmic axes it bends from slope c0 to c0 + c1. With f = 1/c0 and c1 = -c0 it is b x^-c0 + b d^-c0, and with
  f = 1 it is b (1/x + 1/d)^c0.
  """
  name, formula = 'broken_power', 'b x^-c0 (1 + (x/d)^(1/f))^(-c1 f)'
  source = 'Caballero et al. 2023 (arXiv 2210.14891), equation 1 with one break and a = 0'
  names, parameters = ('b', 'c0', 'c1', 'd', 'f'), ('log_b', 'first', 'last', 'break', 'width')
  labels, exponents = names, ('c0',)
  amplitudes = (0,)

  def __init__(self, columns, y):
    rises = np.cov(np.log(columns['x']), np.log(y))[0, 1] > 0
    self.sign = -1.0 if rises else 1.0  # both exponents have it: the form does not turn
    super().__init__(columns, y)

  def model(self, theta, columns):
    log_b, first, last, at, width = (theta[:, i, None] for i in range(5))
    x = self._log(columns, 'x')
    scaled = (x - at) / width
    soft, share = np.logaddexp(0, scaled), _sigmoid(scaled)
    value = np.exp(log_b - first * x + (first - last) * width * soft)
    turn = (first - last) * value
    return value, np.stack([value, value * (width * soft - x), -value * width * soft, -turn * share,
                            turn * (soft - scaled * share)], 1)

  def natural(self, theta):
    log_b, first, last, at, width = theta.T
    reference = np.log(self.reference['x'])
    return np.stack([np.exp(log_b + first * reference), first, last - first, np.exp(at + reference), width], -1)

  def _bounds(self, parameter, columns):
    if parameter in ('first', 'last'):
      return tuple(sorted((0.0, 5.0 * self.sign)))
    x = self._log(columns, 'x')
    return {'break': (x.min(), x.max()), 'width': WIDTHS}.get(parameter) or super()._bounds(parameter, columns)

  def _starts(self, parameter):
    if parameter in ('first', 'last'):
      return self.sign * np.array([0.0, 0.03, 0.1, 0.2, 0.4, 0.8])
    if parameter == 'break':
      return np.linspace(self.lower[3], self.upper[3], 7)
    return np.array([0.3, 1.0, 3.0]) if parameter == 'width' else super()._starts(parameter)


class DataConstrained(Form):
  name = 'data_constrained'
  formula = ("E + A/N'^alpha + B/D'^beta; D' = U_D (1 + R_D* (1 - exp(-R_D/R_D*))), U_D unique examples, "
             "R_D = D/U_D - 1; N' likewise with U_N = min(N, the optimal N for U_D)")
  source = 'Muennighoff et al. 2023 (arXiv 2305.16264), equations 5 and 6'
  inputs = ('params', 'examples', 'unique_examples')
  names = ('E', 'A', 'alpha', 'B', 'beta', 'R_N*', 'R_D*')
  parameters = ('offset', 'log_A', 'log_B', 'alpha', 'beta', 'repeat_N', 'repeat_D')
  labels, exponents = ('E', 'A', 'B', 'alpha', 'beta', 'R_N*', 'R_D*'), ('alpha', 'beta', 'R_N*', 'R_D*')
  amplitudes, offset = (1, 2), 0
  in_chinchilla_terms = True

  def model(self, theta, columns):
    E, log_a, log_b, alpha, beta, repeat_n, repeat_d = (theta[:, i, None] for i in range(7))
    n, d = np.log(columns['params']), np.log(columns['examples'])
    unique = np.minimum(np.log(columns['unique_examples']), d)
    n0, d0 = np.log(self.reference['params']), np.log(self.reference['examples'])
    # Hoffmann et al. 2022, equation 4: N_opt = G^(1 + beta/alpha) U^(beta/alpha), G^(alpha + beta) = alpha A / (beta B)
    log_A, log_B = log_a + alpha * n0, log_b + beta * d0
    log_ratio = np.log(alpha) + log_A - np.log(beta) - log_B
    optimal = (log_ratio + beta * unique) / alpha
    ours = np.minimum(optimal, n)  # log U_N
    size, size_base, size_repeat = _diminished(n - ours, repeat_n)
    data, _, data_repeat = _diminished(d - unique, repeat_d)
    term_n = np.exp(log_a - alpha * (ours + size - n0))
    term_d = np.exp(log_b - beta * (unique + data - d0))
    through = -alpha * term_n * np.where(optimal < n, 1 - size_base, 0)  # d L / d log U_N
    d_alpha = (1 / alpha + n0 - optimal) / alpha
    d_beta = (-1 / beta - d0 + unique) / alpha
    jacobian = [np.ones_like(term_n), term_n + through / alpha, term_d - through / alpha,
                -(ours + size - n0) * term_n + through * d_alpha,
                -(unique + data - d0) * term_d + through * d_beta,
                -alpha * term_n * size_repeat, -beta * term_d * data_repeat]
    return E + term_n + term_d, np.stack(np.broadcast_arrays(*jacobian), 1)

  def natural(self, theta):
    A = np.exp(theta[:, 1] + theta[:, 3] * np.log(self.reference['params']))
    B = np.exp(theta[:, 2] + theta[:, 4] * np.log(self.reference['examples']))
    return np.stack([theta[:, 0], A, theta[:, 3], B, theta[:, 4], theta[:, 5], theta[:, 6]], -1)

  def basis(self, theta, columns):
    # A start uses N in place of N', because the optimal N for U_D depends on the amplitudes.
    n, d = self._log(columns, 'params'), np.log(columns['examples'])
    unique = np.minimum(np.log(columns['unique_examples']), d)
    data, _, _ = _diminished(d - unique, theta[:, 6, None])
    log_data = unique + data - np.log(self.reference['examples'])
    return np.exp(np.stack([-theta[:, 3, None] * n, -theta[:, 4, None] * log_data], 1))

  def start_grid(self):
    exponents = EXPONENTS[3::2]
    return grid(self.y_min * np.array([0, 0.2, 0.4, 0.6, 0.75, 0.85, 0.92, 0.97]), [0.0], [0.0], exponents, exponents,
                [1, 5, 20], [1, 5, 20, 80])

  def _bounds(self, parameter, columns):
    return (0.05, 1e3) if parameter.startswith('repeat') else super()._bounds(parameter, columns)


def _solve(level, a):
  """Solves log sigmoid(z) - a log sigmoid(-z) = level for z.

  The left side is increasing and either convex or concave, so Newton's method converges.
  """
  z = np.where(level < 0, level, level / a)
  for _ in range(100):
    small = np.exp(-np.abs(z))  # one exponential and one logarithm serve both sides
    log = np.log1p(small)
    s = np.where(z > 0, 1, small) / (1 + small)
    step = (np.minimum(z, 0) - log + a * (np.maximum(z, 0) + log) - level) / (1 - s + a * s)
    z = z - step
    if np.all(np.abs(step) <= 1e-13 * (1 + np.abs(z))):
      break
  return z


def _sigmoid(z):
  return np.exp(-np.logaddexp(0, -z))


def _diminished(log_times, repeat):
  """log(1 + repeat (1 - exp(-r / repeat))), where r = exp(log_times) - 1 is the number of repetitions.

  Returns the value, its derivative in `log_times` and its derivative in `repeat`.
  """
  times = np.exp(log_times)
  decay = np.exp(-(times - 1) / repeat)
  inner = 1 + repeat * (1 - decay)
  return np.log(inner), times * decay / inner, (1 - decay - decay * (times - 1) / repeat) / inner
