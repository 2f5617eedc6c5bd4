"""The rules of a ladder of runs, derived from the runs: how fields follow the width, and the learning rate.

A rule is a curve through the runs. Between runs it is a straight line in log-log coordinates. Beyond the outermost run
it continues with the slope of the least-squares power law through all of them. A field that is constant stays constant,
and one that is proportional to the width stays proportional.
"""

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling.frontier import power_law

DIALS = ('width', 'depth')  # the dial of a ladder is the first of these that varies
FOLLOWERS = ('depth', 'mlp_dim', 'num_heads')  # fields that follow the dial
FINEST = 8  # smallest distance between widths, if the runs' own widths are at least that far apart


@dataclasses.dataclass(frozen=True)
class Ladder:
  """The shapes of a ladder as a function of its dial, whose values are the multiples of `step`."""
  dial: str
  step: int
  rules: dict[str, Callable[[float], int]]

  def shape(self, rung: int) -> dict[str, int]:
    """The model fields at dial = rung * step."""
    value = rung * self.step
    shape = {self.dial: value, **{name: rule(value) for name, rule in self.rules.items()}}
    width, heads = shape.get('width'), shape.get('num_heads')
    if width and heads and width % heads:  # irregular ladder: take the nearest divisor of the width
      divisors = [h for h in range(1, width + 1) if width % h == 0]
      shape['num_heads'] = min(divisors, key=lambda h: abs(math.log(h / heads)))
    return shape


def read(models: list[dict]) -> Ladder:
  """Derives the ladder from the model configs of its runs, as plain dicts.

  Raises:
    UserError: no field of DIALS varies.
  """
  varying = [name for name in DIALS if len({model.get(name) for model in models}) > 1]
  if not varying:
    raise UserError(f'the runs do not form a ladder: none of model.{", model.".join(DIALS)} differs between them')
  dial = varying[0]
  values = {name: np.array([model[name] for model in models]) for name in (dial, *FOLLOWERS) if name in models[0]}
  followers = {name: rule for name, rule in values.items() if name != dial}
  rules = {name: _rounded(curve(values[dial], followed), 1 if _ratio(values[dial], followed) else
                          int(np.gcd.reduce(followed))) for name, followed in followers.items()}
  return Ladder(dial, _step(values[dial], followers) if dial == 'width' else 1, rules)


def curve(x: np.ndarray, y: np.ndarray) -> Callable[[float], float]:
  """The rule through the points (x, y), positive arrays [n]. Several y at the same x count as their geometric mean."""
  places, index = np.unique(x, return_inverse=True)
  u, v = np.log(places), np.bincount(index, np.log(y)) / np.bincount(index)
  slope = power_law(x, y).exponent if len(places) > 1 else 0.0

  def at(value):
    inside = np.clip(np.log(value), u[0], u[-1])
    return float(np.exp(np.interp(inside, u, v) + slope * (np.log(value) - inside)))
  return at


@dataclasses.dataclass(frozen=True)
class RateRule:
  """The rule learning_rate = factor * dial^by_dial * examples^by_examples, fitted to `places` best runs.

  `off` is the largest relative distance between the rule and a best run.
  """
  dial: str
  factor: float
  by_dial: float
  by_examples: float
  places: int
  off: float

  def __call__(self, value, examples):
    return self.factor * value ** self.by_dial * examples ** self.by_examples

  def words(self) -> str:
    parts = [f'{name}^{power:.3g}' for name, power in ((self.dial, self.by_dial), ('examples', self.by_examples))
             if power]
    if not parts:
      return f'{self.factor:.3g}, as in all the best runs'
    near = f'within {100 * self.off:.2g}%' if self.off > 5e-4 else 'exactly'
    return f'{self.factor:.3g} {" ".join(parts)}, {near} through the best runs at {self.places} sizes and lengths'


def rate_rule(dial: str, values: np.ndarray, examples: np.ndarray, rates: np.ndarray, loss: np.ndarray) -> RateRule:
  """Fits log learning rate to log dial, and to log examples where they matter, by least squares.

  Among runs of the same size and length, only the one with the lowest loss is used. The examples are included if the
  best rates of a size differ between lengths.
  """
  best = {}
  for i in np.argsort(loss):
    best.setdefault((values[i], examples[i]), i)
  chosen = np.array(sorted(best.values()))
  u, d, rate = np.log(values[chosen]), np.log(examples[chosen]), np.log(rates[chosen])
  if np.ptp(rate) < 1e-6:
    return RateRule(dial, float(rates[chosen[0]]), 0.0, 0.0, len(chosen), 0.0)
  by_length = any(np.ptp(rate[u == value]) > 1e-6 for value in np.unique(u))
  columns = [u - u.mean(), d - d.mean()] if by_length else [u - u.mean()]
  design = np.stack([np.ones_like(u), *columns], 1)
  solution = np.linalg.lstsq(design, rate, rcond=1e-9)[0]
  by_dial, by_examples = float(solution[1]), float(solution[2]) if by_length else 0.0
  factor = float(np.exp(solution[0] - by_dial * u.mean() - by_examples * d.mean()))
  off = float(np.expm1(np.abs(design @ solution - rate).max()))
  return RateRule(dial, factor, by_dial, by_examples, len(chosen), off)


def _rounded(rule, unit):
  return lambda value: max(1, round(rule(value) / unit)) * unit


def _ratio(dial, followed):
  """The ratio followed / dial if it is the same for all runs, else None."""
  first = Fraction(int(followed[0]), int(dial[0]))
  return first if all(followed * dial[0] == followed[0] * dial) else None


def _step(widths, followers):
  """The step between widths: the smallest suitable divisor, FINEST or more, of the greatest common divisor of `widths`.

  At multiples of the step, proportional fields must be whole numbers, and heads must keep their count or their width.
  The step must have as many factors of 2 as position embeddings need.
  """
  common = int(np.gcd.reduce(widths))
  ratios = [ratio for followed in followers.values() if (ratio := _ratio(widths, followed))]
  heads = followers.get('num_heads')
  if heads is not None and len(set(heads)) == 1:
    ratios.append(Fraction(1, int(heads[0]) * math.gcd(4, common // int(heads[0]))))
  whole = lambda step: all((step * ratio).denominator == 1 for ratio in ratios) and step % math.gcd(4, common) == 0
  return next(step for step in range(min(FINEST, common), common + 1) if common % step == 0 and whole(step))
