"""The multi-power law of whole learning curves with any schedule (Luo et al. 2025, arXiv 2503.12811).

  L(t) = L0 + A S1(t)^-alpha - B sum for k = 1..t of (eta_{k-1} - eta_k) G(eta_k^-gamma S_k(t)),
  S_k(t) = sum of eta_i for i = k..t,  G(x) = 1 - (C x + 1)^-beta.

S1 is the area under the learning rate eta, warm-up included, and the sum over k begins after it. Each fall of the rate
brings what G says of the area since then: all of B times the fall in the end, and the sooner the larger C is. The law
of Tissue et al. 2024 (`curve_rows`) has a line in place of G.

The sum over steps is one over pieces. These become shorter towards t, where G bends most.
"""

import dataclasses

import numpy as np

from vit_jax.scaling.forms import EXPONENTS, OFFSETS, Form, grid
from vit_jax.scaling.points import Points

NAME = 'multi_power'
PIECES = 40
_BLOCK = 2_000_000  # array elements at a time, which bounds memory


def of(points: Points) -> tuple[Points, type['MultiPower']]:
  """Points of whole curves with the column `place`, and the form that finds their schedules by it.

  Args:
    points: the points; each row has `_rates`, its learning rates from the end of the warm-up on.
  """
  falls, reach, rates = np.stack([pieces(row['_rates']) for row in points.rows], 1)
  there = np.flatnonzero(np.any(falls, 1))
  found = {'falls': falls[there], 'reach': reach[there], 'rates': rates[there],
           'where': np.searchsorted(there, np.arange(len(falls))), 'annealed': np.any(falls, 1)}
  columns = {name: values for name, values in points.columns.items() if name != 'held'}
  place = np.arange(1.0, len(points) + 1)
  return (dataclasses.replace(points, columns=columns | {'place': place}),
          type('MultiPowerOfRuns', (MultiPower,), found))


def pieces(rates: np.ndarray) -> np.ndarray:
  """(fall, area since then, learning rate) [3, PIECES] of the pieces of a schedule, of which `rates` [n] is the past.

  A piece's area and rate are means that are weighted by the falls of its steps. Pieces that are not needed are zeros,
  with an area and a rate of one.
  """
  out = np.zeros((3, PIECES))
  out[1:] = 1.0
  if len(rates) < 2:
    return out
  fall, reach = -np.diff(rates), np.cumsum(rates[:0:-1])[::-1]
  ends = np.unique(np.geomspace(1, len(fall), PIECES + 1).astype(int))
  starts = (len(fall) - ends[::-1])[:PIECES]
  total = lambda values: np.add.reduceat(values, starts)
  weight = np.abs(fall)
  mass = total(weight)
  there = np.flatnonzero(mass > 0)
  out[0, there] = total(fall)[there]
  for row, values in ((1, reach), (2, np.maximum(rates[1:], 1e-9 * rates.max()))):
    out[row, there] = total(weight * values)[there] / mass[there]
  return out


class MultiPower(Form):
  """The form; `of` binds it to the schedules of some runs.

  Attributes:
    falls, reach, rates: [m, PIECES], the pieces of the m points after a fall of the rate.
    where: [n], the index among these of the point at each place.
    annealed: bool [n], whether it is one of these.
  """
  name, formula = NAME, 'L0 + A S1^-alpha - B sum_k (eta_(k-1) - eta_k) (1 - (C eta_k^-gamma S_k + 1)^-beta)'
  source = 'Luo et al. 2025 (arXiv 2503.12811)'
  inputs = ('area', 'place')
  names = labels = ('L0', 'A', 'alpha', 'B', 'C', 'beta', 'gamma')
  parameters = ('offset', 'log_A', 'alpha', 'log_B', 'speed', 'beta', 'gamma')
  exponents, offset, amplitudes = ('alpha',), 0, (1, 3)
  ordinal = ('place',)
  falls: np.ndarray
  reach: np.ndarray
  rates: np.ndarray
  where: np.ndarray
  annealed: np.ndarray

  def __init__(self, columns, y):
    self.peak, self.whole = float(self.rates.max(initial=0)) or 1.0, float(columns['area'].max())
    super().__init__(columns, y)

  def model(self, theta, columns):
    value, jacobian = self._offset_alone(theta, columns)
    area, place = np.broadcast_arrays(columns['area'], columns['place'])
    z = np.log(area / self.reference['area'])
    term = np.exp(theta[:, 1, None] - theta[:, 2, None] * z)
    value += term
    jacobian[:, 1], jacobian[:, 2] = term, -z * term
    some = np.flatnonzero(self.annealed[place.astype(int) - 1])
    if len(some):
      at = self.where[place[some].astype(int) - 1]
      size = max(1, _BLOCK // (len(some) * PIECES))
      for first in range(0, len(theta), size):
        rows = slice(first, first + size)
        brought, slopes = self._brought(theta[rows], at)
        value[rows, some] -= brought
        jacobian[rows, 3:, some] -= slopes
    return value, jacobian

  def _brought(self, theta, at):
    """What annealing has brought at some points, [R, m], and its derivatives by the last four parameters [R, 4, m]."""
    log_b, speed, beta, gamma = (v[:, None, None] for v in theta.T[3:])
    rate = np.log(self.rates[at] / self.peak)
    x = np.exp(speed + np.log(self.reach[at] / self.whole) - gamma * rate)
    fall = np.exp(log_b) * self.falls[at] / self.peak
    log = np.log1p(x)
    left = np.exp(-beta * log)
    slope = fall * beta * left / (1 + x) * x  # by ln x
    brought = (fall * (1 - left)).sum(-1)
    return brought, np.stack([brought, slope.sum(-1), (fall * left * log).sum(-1), -(slope * rate).sum(-1)], 1)

  def natural(self, theta):
    offset, log_a, alpha, log_b, speed, beta, gamma = theta.T
    a = np.exp(log_a + alpha * np.log(self.reference['area']))
    return np.stack([offset, a, alpha, np.exp(log_b) / self.peak,
                     np.exp(speed + gamma * np.log(self.peak)) / self.whole, beta, gamma], -1)

  def _bounds(self, parameter, columns):
    if parameter == 'speed':  # from no memory at all to the whole run
      return np.log(1e-2), np.log(1e6)
    return (0.0, 2.0) if parameter == 'gamma' else super()._bounds(parameter, columns)

  def start_grid(self):
    return grid(OFFSETS[::3] * self.y_min, [0], EXPONENTS[3::3], [0], np.log([1, 10, 100, 1e3]), [0.3, 1], [0, 0.5])
