"""Functional forms of scaling laws, each with its source, exact derivatives, bounds and start grid.

A form is bound to the points that it is fitted to. Its inputs are divided by their geometric mean, so an amplitude is
the size of its term in the middle of the data and is nearly uncorrelated with its exponent. The logarithm of the
amplitude is fitted. `natural` converts fitted parameters to the coefficients of the source.

Shapes: R simultaneous fits, n points, p parameters. Every form except m4 is L = offset + sum_k exp(a_k) * basis_k.
"""

import itertools
from collections.abc import Mapping

import numpy as np

Columns = Mapping[str, np.ndarray]

EXPONENTS = np.geomspace(0.03, 2.5, 15)  # start values of the exponent of a term
OFFSETS = np.concatenate([np.linspace(0, 0.95, 18), [0.98, 0.995]])  # of the irreducible part / the lowest value
EXPONENT_BOUNDS = (1e-3, 5.0)


class Form:
  """One functional form, bound to points.

  Attributes:
    name: the value of --form.
    formula: the formula, for display.
    source: the paper, for display.
    inputs: the columns that the form reads; `x` is the column chosen with --x.
    names: the coefficients in the source's notation.
    parameters: the fitted parameters, bounded by `lower` and `upper` [p].
    labels: the coefficient that each parameter determines.
    ordinal: the inputs that number things and are no sizes.
    exponents: the coefficients that are exponents (or rates).
    in_chinchilla_terms: whether `frontier.chinchilla_coefficients` reads its coefficients.
    amplitudes: the indices of the log-amplitudes; the form is linear in their exponentials.
    offset: the index of the irreducible part; None for a form without one.
  """
  name: str
  formula: str
  source: str
  inputs: tuple[str, ...] = ('x',)
  ordinal: tuple[str, ...] = ()
  names: tuple[str, ...]
  parameters: tuple[str, ...]
  labels: tuple[str, ...]
  exponents: tuple[str, ...]
  in_chinchilla_terms: bool = False
  amplitudes: tuple[int, ...] = ()
  offset: int | None = None

  def __init__(self, columns: Columns, y: np.ndarray):
    self.reference = {name: float(np.exp(np.mean(np.log(columns[name])))) for name in self.inputs}
    self.y_min, self.y_max, self.y_middle = float(y.min()), float(y.max()), float(np.exp(np.mean(np.log(y))))
    bounds = [self._bounds(parameter, columns) for parameter in self.parameters]
    self.lower, self.upper = np.array(bounds, float).T

  def model(self, theta: np.ndarray, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Values [R, n] and exact derivatives [R, p, n] of the form at `theta` [R, p]."""
    raise NotImplementedError

  def natural(self, theta: np.ndarray) -> np.ndarray:
    """The coefficients [R, len(names)] for parameters theta [R, p]."""
    raise NotImplementedError

  def equation(self, metric: str) -> str:
    """The equation on one line, such as `loss = b x^c`."""
    formula = self.formula.partition(';')[0]
    return f'{formula}, y = {metric}' if '=' in formula else f'{metric} = {formula}'

  def start_grid(self) -> np.ndarray:
    """Start values [S, p] of all parameters; `starts` solves for the log-amplitudes (variable projection)."""
    return grid(*(self._starts(parameter) for parameter in self.parameters))

  @property
  def sizes(self) -> tuple[str, ...]:
    """The inputs that are sizes."""
    return tuple(name for name in self.inputs if name not in self.ordinal)

  @property
  def from_zero(self) -> list[bool]:
    """[p], the parameters that are an irreducible part or a shift: 0 says that the data show none."""
    return [parameter.partition('_')[0] in ('offset', 'shift') for parameter in self.parameters]

  @property
  def label_of_offset(self) -> str | None:
    """The coefficient that is the irreducible part."""
    return None if self.offset is None else self.labels[self.offset]

  def starts(self, columns: Columns, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The start grid [S, p] with amplitudes from weighted least squares."""
    theta = self.start_grid()
    rest = y - (theta[:, self.offset, None] if self.offset is not None else 0.0)
    sizes = positive_least_squares(self.basis(theta, columns), rest, weights, 1e-3 * self.y_min)
    theta[:, list(self.amplitudes)] = np.log(sizes)
    return np.clip(theta, self.lower, self.upper)

  def basis(self, theta: np.ndarray, columns: Columns) -> np.ndarray:
    """The factors of the K amplitudes, [S, K, n]."""
    theta = theta.copy()
    theta[:, list(self.amplitudes)] = 0.0
    return self.model(theta, columns)[1][:, list(self.amplitudes)]  # d L / d a_k at a_k = 0

  def _offset_alone(self, theta, columns):
    """`model` of a form without its terms: sums to which these are added."""
    rows = np.broadcast(*(columns[name] for name in self.inputs), np.empty(1)).shape[-1]
    value, jacobian = np.zeros((len(theta), rows)), np.zeros((len(theta), len(self.parameters), rows))
    if self.offset is not None:
      value += theta[:, self.offset, None]
      jacobian[:, self.offset] = 1.0
    return value, jacobian

  def _log(self, columns, name):
    return np.log(columns[name] / self.reference[name])

  def _bounds(self, parameter, columns):
    kind = parameter.partition('_')[0]
    if kind == 'offset':
      return 0.0, self.y_max
    if kind == 'log':  # from a negligible term to one a million times as large as the data
      return np.log(self.y_min) - 14, np.log(self.y_max) + 14
    return EXPONENT_BOUNDS

  def _starts(self, parameter):
    kind = parameter.partition('_')[0]
    return {'offset': OFFSETS * self.y_min, 'log': np.zeros(1)}.get(kind, EXPONENTS)


class PowerSum(Form):
  """offset + sum_k exp(a_k) (x_k / reference_k)^-exponent_k; terms can share an exponent."""
  term_inputs: tuple[str, ...] = ('x',)
  term_exponents: tuple[int, ...]  # the index of each term's exponent in `parameters`

  def model(self, theta, columns):
    value, jacobian = self._offset_alone(theta, columns)
    for name, amplitude, exponent in zip(self.term_inputs, self.amplitudes, self.term_exponents):
      z = self._log(columns, name)
      term = np.exp(theta[:, amplitude, None] - theta[:, exponent, None] * z)
      value += term
      jacobian[:, amplitude] = term
      jacobian[:, exponent] -= z * term
    return value, jacobian

  def _amplitude(self, theta, k):
    """The factor of x^-exponent in term k, in the units of the columns."""
    exponent = theta[:, self.term_exponents[k]]
    return np.exp(theta[:, self.amplitudes[k]] + exponent * np.log(self.reference[self.term_inputs[k]]))


class Power(PowerSum):
  name, formula = 'power', 'b x^c'
  source = 'Hestness et al. 2017 (arXiv 1712.00409); M1 of Alabdulmohsin et al. 2022 (arXiv 2209.06640)'
  names, parameters = ('b', 'c'), ('log_b', 'decay')
  labels, exponents = ('b', 'c'), ('c',)
  amplitudes, term_exponents = (0,), (1,)

  def natural(self, theta):
    return np.stack([self._amplitude(theta, 0), -theta[:, 1]], -1)

  def _bounds(self, parameter, columns):
    return (-5.0, 5.0) if parameter == 'decay' else super()._bounds(parameter, columns)  # N*(C) increases

  def _starts(self, parameter):
    return np.concatenate([-EXPONENTS, EXPONENTS]) if parameter == 'decay' else super()._starts(parameter)


class PowerOffset(PowerSum):
  name, formula = 'power_offset', 'e + b x^c'
  source = 'M2 of Alabdulmohsin et al. 2022 (arXiv 2209.06640), section 3'
  names, parameters = ('e', 'b', 'c'), ('offset', 'log_b', 'decay')
  labels, exponents = ('e', 'b', 'c'), ('c',)
  offset, amplitudes, term_exponents = 0, (1,), (2,)

  def natural(self, theta):
    return np.stack([theta[:, 0], self._amplitude(theta, 0), -theta[:, 2]], -1)


class ShiftedPower(Form):
  name, formula = 'shifted_power', 'b (1/x + g)^c'
  source = 'M3 of Alabdulmohsin et al. 2022 (arXiv 2209.06640), section 3'
  names, parameters = ('b', 'c', 'g'), ('log_b', 'power', 'shift')
  labels, exponents = ('b', 'c', 'g'), ('c',)
  amplitudes = (0,)

  def __init__(self, columns, y):
    self.x_max = float(columns['x'].max())
    super().__init__(columns, y)

  def model(self, theta, columns):
    inverse = 1 / columns['x']
    base = self.reference['x'] * (inverse + theta[:, 2, None] / self.x_max)
    value = np.exp(theta[:, 0, None] + theta[:, 1, None] * np.log(base))
    shift = value * theta[:, 1, None] / (inverse + theta[:, 2, None] / self.x_max) / self.x_max
    return value, np.stack([value, value * np.log(base), shift], 1)

  def natural(self, theta):
    b = np.exp(theta[:, 0] + theta[:, 1] * np.log(self.reference['x']))
    return np.stack([b, theta[:, 1], theta[:, 2] / self.x_max], -1)

  def _bounds(self, parameter, columns):
    # Beyond the smallest x, the shift makes the form constant over all points.
    return (0.0, self.x_max / columns['x'].min()) if parameter == 'shift' else super()._bounds(parameter, columns)

  def _starts(self, parameter):
    return np.concatenate([[0], np.geomspace(1e-2, 1e2, 13)]) if parameter == 'shift' else super()._starts(parameter)


class Zhai(Form):
  name, formula = 'zhai', 'a (x + d)^-b + c'
  source = 'Zhai et al. 2022 (arXiv 2106.04560), section 2'
  names, parameters = ('a', 'b', 'c', 'd'), ('log_a', 'decay', 'offset', 'shift')
  labels, exponents = ('a', 'b', 'c', 'd'), ('b',)
  amplitudes, offset = (0,), 2

  def __init__(self, columns, y):
    self.x_min = float(columns['x'].min())
    super().__init__(columns, y)

  def model(self, theta, columns):
    shifted = columns['x'] + theta[:, 3, None] * self.x_min
    z = np.log(shifted / self.reference['x'])
    term = np.exp(theta[:, 0, None] - theta[:, 1, None] * z)
    shift = -theta[:, 1, None] * term / shifted * self.x_min
    return term + theta[:, 2, None], np.stack([term, -z * term, np.ones_like(term), shift], 1)

  def natural(self, theta):
    a = np.exp(theta[:, 0] + theta[:, 1] * np.log(self.reference['x']))
    return np.stack([a, theta[:, 1], theta[:, 2], theta[:, 3] * self.x_min], -1)

  def _bounds(self, parameter, columns):
    if parameter == 'shift':  # beyond the largest x, the form is a straight line over all points
      return 0.0, columns['x'].max() / self.x_min
    return super()._bounds(parameter, columns)

  def _starts(self, parameter):
    return np.array([0, 0.1, 1, 10, 100.0]) if parameter == 'shift' else super()._starts(parameter)


class Chinchilla(PowerSum):
  name, formula = 'chinchilla', 'E + A/N^alpha + B/D^beta'
  source = 'Hoffmann et al. 2022 (arXiv 2203.15556), equation 2'
  inputs = term_inputs = ('params', 'examples')
  names = ('E', 'A', 'alpha', 'B', 'beta')
  parameters = ('offset', 'log_A', 'log_B', 'alpha', 'beta')
  labels, exponents = ('E', 'A', 'B', 'alpha', 'beta'), ('alpha', 'beta')
  offset, amplitudes, term_exponents = 0, (1, 2), (3, 4)
  in_chinchilla_terms = True

  def natural(self, theta):
    return np.stack([theta[:, 0], self._amplitude(theta, 0), theta[:, 3], self._amplitude(theta, 1), theta[:, 4]], -1)


class ChinchillaTied(PowerSum):
  name, formula = 'chinchilla_tied', 'E + A/N^alpha + B/D^alpha'
  source = 'Hoffmann et al. 2022 (arXiv 2203.15556), equation 2, with alpha = beta'
  inputs = term_inputs = ('params', 'examples')
  names, parameters = ('E', 'A', 'B', 'alpha'), ('offset', 'log_A', 'log_B', 'alpha')
  labels, exponents = ('E', 'A', 'B', 'alpha'), ('alpha',)
  offset, amplitudes, term_exponents = 0, (1, 2), (3, 3)
  in_chinchilla_terms = True

  def natural(self, theta):
    return np.stack([theta[:, 0], self._amplitude(theta, 0), self._amplitude(theta, 1), theta[:, 3]], -1)

  def _starts(self, parameter):
    return np.geomspace(EXPONENTS[0], EXPONENTS[-1], 60) if parameter == 'alpha' else super()._starts(parameter)


class Overtrain(ChinchillaTied):
  name, formula = 'overtrain', 'E + a N^b + c 6^(b/2) (M N)^b; M = D/N'
  source = 'Gadre et al. 2024 (arXiv 2403.08540), equation 4 with C = 6 N D'
  names = ('E', 'a', 'b', 'c')
  labels, exponents = ('E', 'a', 'c', 'b'), ('b',)

  def natural(self, theta):
    alpha = theta[:, 3]
    return np.stack([theta[:, 0], self._amplitude(theta, 0), -alpha, self._amplitude(theta, 1) * 6 ** (alpha / 2)], -1)


def grid(*axes: np.ndarray) -> np.ndarray:
  """The Cartesian product of one-dimensional axes, as rows [S, len(axes)]."""
  return np.array(list(itertools.product(*axes)), float)


def positive_least_squares(basis: np.ndarray, y: np.ndarray, weights: np.ndarray, floor: float) -> np.ndarray:
  """Weighted least-squares amplitudes [S, K] of basis [S, K, n] for y [S, n] or [n].

  A term that would be negative is left out, and so is one that the others make up. No term is smaller than `floor` on
  average.
  """
  weighted = basis * weights
  gram = np.matmul(weighted, basis.transpose(0, 2, 1))
  right = np.matmul(weighted, np.broadcast_to(y, (len(basis), basis.shape[-1]))[:, :, None])[:, :, 0]
  length = np.sqrt(np.maximum(np.einsum('skk->sk', gram), 1e-300))
  gram, right = gram / length[:, :, None] / length[:, None, :], right / length
  scale = floor / np.maximum(np.abs(basis.mean(-1)), 1e-300) * length
  inside, sizes = np.ones(right.shape, bool), right
  eye = np.eye(right.shape[1])
  for _ in range(right.shape[1]):
    matrix = np.where(inside[:, :, None] & inside[:, None, :], gram, eye)
    matrix = matrix + 1e-12 * eye
    sizes = np.linalg.solve(matrix, (right * inside)[:, :, None])[:, :, 0]
    wrong = inside & (sizes <= 0)
    if not wrong.any():
      break
    worst = wrong & (sizes == np.where(wrong, sizes, np.inf).min(1, keepdims=True))
    inside &= ~worst
  return np.maximum(np.where(inside, sizes, 0.0), scale) / length
