"""Which runs to train next: those that narrow the interval of a target most for their FLOPs.

The law is linearised at its fit, or at assumed coefficients, so a run's information is known before it is trained: the
outer product of its derivatives over its variance (optimal design; Pukelsheim 2006, chapter 2: c-optimality for one
target). Trunks are chosen one after another, by the decrease of the logarithm of the target's variance, and then
exchanged while that helps. The lengths of a size and seed are branches of one trunk, which is paid once; they have a
part of their deviation in common, so two branches are worth less than two runs. A linear account knows no misfit and
would repeat the cheapest runs without end: a size has at most SEEDS trunks.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import start, written
from vit_jax.scaling.estimate import Fit
from vit_jax.scaling.forms import Form
from vit_jax.scaling.frontier import Cost
from vit_jax.scaling.start import Range
from vit_jax.scaling.target import Target
from vit_jax.scaling.verdict import WIDE, number

Z = 1.96
IN_COMMON = 0.5  # the share of the variance that branches of one trunk have in common, where it cannot be measured
_PRIOR = {'offset': 0.5, 'log': 3.0, 'scale': 3.0}  # standard deviations before any run; the offset's in units of y
_PRIOR_EXPONENT = 0.5
SIZES, LENGTHS = 8, 6  # candidates
SEEDS = 3  # trunks of one size, or runs of one size and length


@dataclasses.dataclass(frozen=True)
class Law:
  """What is known before the design.

  Attributes:
    form: the form, bound to the points or to the candidates.
    theta: [p], its parameters.
    sigma: the standard deviation of ln y of a run.
    efficiency: the variance of an estimate over that of least squares: pi / 2 for a Huber loss with a small delta.
    information: [p, p], of the points that are there, and of vague prior knowledge.
    in_common: the share of a run's variance that it has in common with the branches of its trunk.
  """
  form: Form
  theta: np.ndarray
  sigma: float
  efficiency: float
  information: np.ndarray
  in_common: float


@dataclasses.dataclass(frozen=True)
class Trunk:
  """Chosen runs of one size and seed: params, the examples of each, and the FLOPs of all."""
  params: float
  examples: tuple[float, ...]
  flops: float


@dataclasses.dataclass(frozen=True)
class Design:
  """The chosen runs and what they are expected to give.

  Attributes:
    trunks: the chosen runs, by size.
    flops: the FLOPs of all, with shared trunks.
    predicted: the law at the target.
    before: the 95% interval of the law at the target without these runs, as a factor: predicted / f to predicted * f.
    after: the same with them.
    coefficients: {exponent: [low, high]}, the 95% intervals that are expected.
    missing: sentences on exponents that will not be identified, each with the run that would help most.
  """
  trunks: tuple[Trunk, ...]
  flops: float
  predicted: float
  before: float
  after: float
  coefficients: dict[str, list[float]]
  missing: tuple[str, ...]

  def describe(self) -> str:
    """The expected gain in one sentence."""
    part = lambda factor: f'{100 * (factor - 1):.2g}%' if factor < 2 else f'a factor of {factor:.2g}'
    runs = sum(len(trunk.examples) for trunk in self.trunks)
    return (f'{runs} {"run" if runs == 1 else "runs"} on {len(self.trunks)} '
            f'{"trunk" if len(self.trunks) == 1 else "trunks"}, {number(self.flops, 3)} FLOPs: the interval of the law '
            f'at the target is expected to narrow from +-{part(self.before)} to +-{part(self.after)}')


def ranges(text: str | None, params: Range, examples: Range) -> tuple[np.ndarray, np.ndarray]:
  """The sizes and lengths of the candidates, from --within, such as params=1e5..1e8,examples=1e6..1e9.

  Args:
    text: --within; None for the ranges that follow.
    params, examples: the lowest and highest of a range that the text does not give.

  Raises:
    UserError: another name, or no range of numbers above 0.
  """
  given = {written.ALIASES.get(name, name): found for name, found in start.parse(text or '', 'within').items()}
  out = []
  for name, (low, high), count in (('params', params, SIZES), ('examples', examples, LENGTHS)):
    found = given.pop(name, start.Start(low, high))
    if not (found.low and found.high and found.low > 0):
      raise UserError(f'--within={text}: expected {name}=LOW..HIGH with numbers above 0')
    out.append(np.geomspace(found.low, found.high, count))
  if given:
    raise UserError(f'--within={text}: {next(iter(given))}: expected params and examples')
  return out[0], out[1]


def assume(text: str, cls: type[Form], sizes: np.ndarray, lengths: np.ndarray) -> Law:
  """The law of assumed coefficients, from --assume, such as E=0.3,A=400,alpha=0.34,B=400,beta=0.28,sigma=0.02.

  Args:
    text: the coefficients, and sigma, the standard deviation of ln y of a run.
    cls: a written form, or a built-in one whose formula can be read as one.
    sizes, lengths: the candidates, which set the middle of the law's parametrisation.

  Raises:
    UserError: a coefficient that is missing or unknown.
  """
  form = cls if issubclass(cls, written.Written) else written.form(cls.formula, '', ('params', 'examples'))
  found = {name: value.value for name, value in start.parse(text, 'assume').items()}
  sigma = found.pop('sigma', None)
  if set(found) != set(form.names) or None in found.values() or not sigma:
    wanted = ', '.join(f'{name}=..' for name in (*form.names, 'sigma'))
    raise UserError(f'--assume={text}: expected {wanted}; sigma is the standard deviation of ln loss between runs')
  n, d = (axis.ravel() for axis in np.meshgrid(sizes, lengths))
  columns = {'params': n, 'examples': d}
  rough = form(columns, np.ones(len(n)))  # its middle needs no y, and y is what the coefficients say
  bound = form(columns, rough.model(rough.theta_of(found), columns)[0][0])
  _check(bound)
  return Law(bound, bound.theta_of(found)[0], float(sigma), 1.0, _prior(bound), IN_COMMON)


def of_fit(fit: Fit, clusters: np.ndarray) -> Law:
  """What a fit knows. Residuals within one cluster tell how much branches have in common.

  Raises:
    UserError: a form that is not in params and examples.
  """
  _check(fit.form)
  value, jacobian = (a[0] for a in fit.form.model(fit.theta[None], fit.columns))
  sigma = max(fit.sigma if fit.objective.log else fit.sigma / fit.form.y_middle, 1e-6)
  efficiency = np.pi / 2 if fit.objective.name == 'log_huber' else 1.0
  slopes = (jacobian / value)[:, ~fit.outliers]
  in_common = _in_common(fit.residuals[~fit.outliers], np.asarray(clusters)[~fit.outliers])
  information = _prior(fit.form) + slopes @ slopes.T / (efficiency * sigma ** 2)
  return Law(fit.form, fit.theta, sigma, efficiency, information, in_common)


def choose(law: Law, target: Target, sizes: Sequence[float], lengths: Sequence[float], cost: Cost, budget: float,
           cooldown: float | None = 0.3) -> Design:
  """Chooses runs of the sizes and lengths within a budget.

  Args:
    law: see `of_fit` and `assumed`.
    target: {params, examples}.
    sizes: params of the candidates.
    lengths: examples of the candidates.
    cost: FLOPs of params and examples.
    budget: FLOPs.
    cooldown: the share of a run that is its own, where lengths are branches of a trunk; None for separate runs.

  Raises:
    UserError: no candidate is within the budget.
  """
  aim = _slopes(law, [target['params']], [target['examples']])[:, 0]
  offered = _offers(law, sizes, lengths, cost, cooldown)
  cheapest = min(trunk.flops for trunk in offered.trunks)
  if cheapest > budget:
    raise UserError(f'--budget={budget:g}: expected at least the FLOPs of the cheapest run, {cheapest:.3g}')
  found = [_exchanged(law, aim, offered, budget, _greedy(law, aim, offered, budget, [], per_flop))
           for per_flop in (True, False)]
  picked = min(found, key=lambda one: _variance(_total(law, offered, one), aim))
  chosen, information = [offered.trunks[k] for k in picked], _total(law, offered, picked)
  value = float(law.form.model(law.theta[None], {'params': np.array([target['params']]),
                                                 'examples': np.array([target['examples']])})[0][0, 0])
  factor = lambda m: float(np.exp(min(Z * np.sqrt(_variance(m, aim)), 50)))
  intervals, missing = _exponents(law, information, offered)
  chosen.sort(key=lambda trunk: (trunk.params, trunk.examples))
  return Design(tuple(chosen), sum(trunk.flops for trunk in chosen), value, factor(law.information),
                factor(information), intervals, tuple(missing))


def expected(law: Law, target: Target, trunks: Sequence[Trunk], cooldown: float | None = 0.3) -> float:
  """The factor (see `Design.after`) that some trunks give."""
  aim = _slopes(law, [target['params']], [target['examples']])[:, 0]
  worth = [_worth(law, _slopes(law, np.full(len(trunk.examples), trunk.params), trunk.examples), cooldown)
           for trunk in trunks]
  return float(np.exp(min(Z * np.sqrt(_variance(law.information + sum(worth), aim)), 50)))


def grid_of_equal_flops(law: Law, target: Target, sizes: Sequence[float], lengths: Sequence[float], cost: Cost,
                        budget: float, cooldown: float | None = 0.3) -> float:
  """The factor (see `Design.after`) that a grid of all sizes and lengths gives, the largest that the budget allows."""
  for count in range(len(sizes), 0, -1):
    trunks = [Trunk(float(n), tuple(lengths), _paid(cost, n, lengths, cooldown)) for n in sizes[:count]]
    paid = sum(trunk.flops for trunk in trunks)
    if paid <= budget:
      return expected(law, target, min(int(budget // paid), SEEDS) * trunks, cooldown)
  return float('nan')


def _check(form):
  if set(form.inputs) != {'params', 'examples'}:
    raise UserError(f'--design: expected a form in params and examples, such as --form=chinchilla; {form.name} is in '
                    f'{", ".join(form.inputs)}')


def _prior(form):
  kinds = [parameter.partition('_')[0] for parameter in form.parameters]
  spread = np.array([_PRIOR.get(kind, _PRIOR_EXPONENT) for kind in kinds])
  spread[[kind == 'offset' for kind in kinds]] *= form.y_middle
  return np.diag(spread ** -2)


def _in_common(residuals, clusters):
  """The share of the variance between clusters, by one-way analysis of variance."""
  index = np.unique(clusters, return_inverse=True)[1]
  sizes = np.bincount(index)
  if len(sizes) < 8 or sizes.max() < 2 or len(residuals) - len(sizes) < 4:
    return IN_COMMON
  means = np.bincount(index, residuals) / sizes
  within = np.sum((residuals - means[index]) ** 2) / (len(residuals) - len(sizes))
  between = np.sum(sizes * (means - residuals.mean()) ** 2) / (len(sizes) - 1)
  each = (len(residuals) - np.sum(sizes ** 2) / len(residuals)) / (len(sizes) - 1)
  return float(np.clip((between - within) / (between + (each - 1) * within), 0.0, 0.95))


def _slopes(law, params, examples):
  """The derivatives of ln y, [p, m]."""
  columns = {'params': np.asarray(params, float), 'examples': np.asarray(examples, float)}
  value, jacobian = (a[0] for a in law.form.model(law.theta[None], columns))
  return jacobian / value


def _variance(information, aim):
  return float(aim @ np.linalg.solve(information, aim))


def _worth(law, slopes, cooldown):
  """The information of the branches of one trunk, slopes [p, m]."""
  m = slopes.shape[1]
  share = law.in_common if cooldown is not None else 0.0
  covariance = (1 - share) * np.eye(m) + share
  return slopes @ np.linalg.solve(covariance, slopes.T) / (law.efficiency * law.sigma ** 2)


def _paid(cost, n, lengths, cooldown):
  """The FLOPs of branches of several lengths: the longest stable part once, and each cooldown."""
  lengths = np.asarray(lengths, float)
  examples = lengths.sum() if cooldown is None else (1 - cooldown) * lengths.max() + cooldown * lengths.sum()
  return float(cost.k * n ** cost.q * examples)


@dataclasses.dataclass(frozen=True)
class _Offers:
  """K trunks to choose from, their information [K, p, p], FLOPs [K], and the number [K] of what SEEDS counts."""
  trunks: list[Trunk]
  worth: np.ndarray
  flops: np.ndarray
  kind: np.ndarray


def _offers(law, sizes, lengths, cost, cooldown):
  lengths = sorted(lengths)
  spans = [(i, j) for i in range(len(lengths)) for j in range(i + 1, len(lengths) + 1)
           if cooldown is not None or j == i + 1]
  trunks, worth, kind = [], [], []
  for n in sizes:
    for i, j in spans:
      some = lengths[i:j]
      trunks.append(Trunk(float(n), tuple(map(float, some)), _paid(cost, n, some, cooldown)))
      worth.append(_worth(law, _slopes(law, np.full(len(some), n), some), cooldown))
      kind.append((n, None if cooldown is not None else i))
  return _Offers(trunks, np.array(worth), np.array([trunk.flops for trunk in trunks]),
                 np.array([list(dict.fromkeys(kind)).index(one) for one in kind]))


def _total(law, offered, picked):
  return law.information + offered.worth[picked].sum(0)


def _variances(information, aim):
  """The target's variance for each of several informations, [K]."""
  return np.linalg.solve(information, np.broadcast_to(aim, information.shape[:2])[:, :, None])[:, :, 0] @ aim


def _allowed(offered, picked, left):
  full = np.bincount(offered.kind[picked], minlength=offered.kind.max() + 1) >= SEEDS
  return (offered.flops <= left) & ~full[offered.kind]


def _greedy(law, aim, offered, budget, picked, per_flop):
  """The indices of `picked` and of what is added to them until the budget is spent."""
  picked = list(picked)
  while True:
    now = _total(law, offered, picked)
    gain = np.log(_variance(now, aim) / _variances(now + offered.worth, aim))
    gain[~_allowed(offered, picked, budget - offered.flops[picked].sum())] = -np.inf
    best = int(np.argmax(gain / offered.flops if per_flop else gain))
    if not gain[best] > 1e-6:
      return picked
    picked.append(best)


def _exchanged(law, aim, offered, budget, picked):
  """Replaces one trunk after another by a better one, and spends what is left, while that narrows the target."""
  improved = True
  while improved:
    improved = False
    for place in range(len(picked)):
      rest = picked[:place] + picked[place + 1:]
      tried = _variances(_total(law, offered, rest) + offered.worth, aim)
      tried[~_allowed(offered, rest, budget - offered.flops[rest].sum())] = np.inf
      best = int(np.argmin(tried))
      if tried[best] < (1 - 1e-3) * _variance(_total(law, offered, picked), aim):
        picked, improved = _greedy(law, aim, offered, budget, [*rest, best], False), True
        break
  return picked


def _exponents(law, information, offered):
  """The expected intervals of exponents, and sentences on those that will not be identified."""
  covariance, intervals, missing = np.linalg.inv(information), {}, []
  for name in law.form.exponents:
    i = law.form.labels.index(name)
    if law.form.parameters[i].startswith('scale'):  # its logarithm is fitted
      continue
    value, spread = float(law.theta[i]), Z * float(np.sqrt(covariance[i, i]))
    intervals[name] = [max(value - spread, 0.0), value + spread]
    if value - spread <= 0 or value + spread > WIDE * (value - spread):
      unit = np.eye(len(law.theta))[i]
      gain = np.log(_variance(information, unit) / _variances(information + offered.worth, unit)) / offered.flops
      best = offered.trunks[int(np.argmax(gain))]
      missing.append(f'with this sweep {name} will not be identified ({intervals[name][0]:.2g} to '
                     f'{intervals[name][1]:.2g}): add runs such as N = {number(best.params, 3)}, '
                     f'D = {number(max(best.examples), 3)}')
  return intervals, missing
