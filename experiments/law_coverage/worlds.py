"""The worlds of coverage.py: a truth, the runs that are made of it, their noise, and how a law is fitted to them."""

import dataclasses
from collections.abc import Callable

import numpy as np

Columns = dict[str, np.ndarray]
HOFFMANN = {'E': 1.69, 'A': 406.4, 'alpha': 0.34, 'B': 410.7, 'beta': 0.28}  # Hoffmann et al. 2022, appendix D.3
TIED = {'E': 1.69, 'A': 406.4, 'B': 410.7, 'alpha': 0.31}
STEEP = {'E': 1.8, 'A': 1.9e5, 'alpha': 0.684, 'B': 1.56e4, 'beta': 0.439}  # a parabola is biased on such a surface
OFFSET = {'e': 0.5, 'b': 200.0, 'c': -0.4}
SHIFTED = {'b': 200.0, 'c': 0.4, 'g': 5e-8}
FIXED, AUTO = 300, 100  # refits (`law` makes 1,000); fewer where each of them selects its form, which takes longer


@dataclasses.dataclass(frozen=True)
class Truth:
  """A law, and its coefficients by name; {} of a law that is none of the forms."""
  loss: Callable[[Columns], np.ndarray]
  coefficients: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class World:
  """Runs of a truth, and the law that is fitted to them.

  Attributes:
    name: unique.
    truth: the law that the runs follow.
    runs: the inputs of the runs, {name: [n]}: params and examples (and flops), or x.
    form: --form.
    sigma: the standard deviation of ln loss.
    noise: maps a generator and the trunks [n] of n runs to deviations [n] of standard deviation 1.
    trunks: [n], the trunk of each run, which no column tells; None where each run is its own.
    diverged: the share of the runs that end 10% to 80% too high.
    objective: --objective.
    refits: --bootstrap.
    saves: the compute, or x, that a second group needs for the loss of the first; None for one group.
    like: the world whose intervals these are compared with.
  """
  name: str
  truth: Truth
  runs: Columns
  form: str
  sigma: float = 0.01
  noise: Callable = lambda random, trunks: random.standard_normal(len(trunks))
  trunks: np.ndarray | None = None
  diverged: float = 0.0
  objective: str = 'log_huber'
  refits: int = FIXED
  saves: float | None = None
  like: str = ''

  @property
  def misfit(self) -> bool:
    """Whether the truth is none of the forms."""
    return not self.truth.coefficients


def chinchilla(E, A, alpha, B, beta=None):
  return lambda c: E + A * c['params'] ** -alpha + B * c['examples'] ** -(beta or alpha)


def kinked(exponent, at, sharp=4.0):
  """x^-exponent whose exponent halves around `at` (a smoothly broken power law; Caballero et al. 2022)."""
  return lambda x: x ** -exponent * (1 + (x / at) ** sharp) ** (exponent / 2 / sharp)


def bent(slope, bend, middle):
  """A parabola of ln loss over ln x."""
  return lambda c: 2 * np.exp(slope * np.log(c['x'] / middle) + bend * np.log(c['x'] / middle) ** 2)


def grid(sizes: int, lengths: int, seeds: int = 1) -> Columns:
  n, d = np.meshgrid(np.repeat(np.geomspace(3e6, 1e9, sizes), seeds), np.geomspace(3e8, 3e10, lengths), indexing='ij')
  return {'params': n.ravel(), 'examples': d.ravel()}


def isoflop(truth: dict, budgets: np.ndarray, sizes: int, span: float, drift: float = 0.0) -> Columns:
  """Sizes around the optimum of each budget, from 1/span to span of it; it drifts by (C/C_middle)^drift."""
  alpha, beta = truth['alpha'], truth['beta']
  best = (alpha * truth['A'] / (beta * truth['B'])) ** (1 / (alpha + beta)) * (budgets / 6) ** (beta / (alpha + beta))
  n = (best * (budgets / np.sqrt(budgets[0] * budgets[-1])) ** drift)[:, None] * np.geomspace(1 / span, span, sizes)
  return _of_budgets(n.ravel(), np.repeat(budgets, sizes))


def fixed_sizes(budgets: np.ndarray) -> Columns:
  """The same twelve sizes at all budgets, where 2 to 200 examples come on a parameter."""
  n, c = (a.ravel() for a in np.meshgrid(np.geomspace(3e7, 3e10, 12), budgets))
  per_param = c / 6 / n ** 2
  return _of_budgets(n[some := (per_param > 2) & (per_param < 200)], c[some])


def _of_budgets(params, flops):
  return {'params': params, 'examples': flops / 6 / params, 'flops': flops}


def heavy(random, trunks):
  """Student's t with three degrees of freedom, with the middle half of a normal deviate."""
  return random.standard_t(3, len(trunks)) * 0.6745 / 0.7649


def branches(random, trunks):
  """Three quarters of the variance belong to the trunk."""
  shared = random.standard_normal(trunks.max() + 1)[trunks]
  return np.sqrt(0.75) * shared + np.sqrt(0.25) * random.standard_normal(len(trunks))


SEEDS = {'x': np.repeat(np.geomspace(1e5, 1e8, 10), 3)}  # ten sizes, three seeds
BUDGETS = np.geomspace(6e18, 3e21, 9)  # those of Hoffmann et al. 2022
TRUE = Truth(chinchilla(**HOFFMANN), HOFFMANN)
TRUE_TIED, TRUE_STEEP = Truth(chinchilla(**TIED), TIED), Truth(chinchilla(**STEEP), STEEP)
TRUE_OFFSET = Truth(lambda c: OFFSET['e'] + OFFSET['b'] * c['x'] ** OFFSET['c'], OFFSET)
TRUE_POWER = Truth(lambda c: 200 * c['x'] ** -0.4, {'b': 200.0, 'c': -0.4})
TRUE_SHIFTED = Truth(lambda c: SHIFTED['b'] * (1 / c['x'] + SHIFTED['g']) ** SHIFTED['c'], SHIFTED)
# Misfits: the exponent of N halves; large models on little data overfit; a kink; curves of ln loss over ln x
KINK_N = Truth(lambda c: 1.69 + 406.4 * kinked(0.34, 1e8)(c['params']) + 410.7 * c['examples'] ** -0.28)
OVERFIT = Truth(lambda c: TRUE.loss(c) + 0.1 * np.sqrt(c['params'] / c['examples']))
KINK_X = Truth(lambda c: 0.5 + 200 * kinked(0.4, 1e7)(c['x']))
FASTER_X, SLOWER_X = (Truth(bent(-0.25, bend, 3e6)) for bend in (-0.01, 0.01))

WORLDS = (
    World('chinchilla, 48 runs', TRUE, grid(8, 6), 'chinchilla'),
    World('chinchilla, 240 runs', TRUE, grid(16, 15), 'chinchilla'),
    World('chinchilla, 24 runs', TRUE, grid(6, 4), 'chinchilla'),
    World('chinchilla, 48 runs, least squares', TRUE, grid(8, 6), 'chinchilla', objective='log_lsq'),
    World('chinchilla, 48 runs, 5% diverged', TRUE, grid(8, 6), 'chinchilla', diverged=0.05,
          like='chinchilla, 48 runs'),
    World('chinchilla, 48 runs, heavy tails', TRUE, grid(8, 6), 'chinchilla', noise=heavy),
    World('chinchilla, 16 undeclared trunks of 6 branches', TRUE, grid(16, 6), 'chinchilla', noise=branches,
          trunks=np.repeat(np.arange(16), 6)),
    World('chinchilla, 2 undeclared trunks of 6 branches at each of 10 sizes', TRUE, grid(10, 6, 2), 'chinchilla',
          noise=branches, trunks=np.repeat(np.arange(20), 6)),
    World('power_offset, 30 runs', TRUE_OFFSET, SEEDS, 'power_offset', 0.015),
    World('power_offset, 30 runs, 5% diverged', TRUE_OFFSET, SEEDS, 'power_offset', 0.015, diverged=0.05,
          like='power_offset, 30 runs'),
    World('power_offset, 30 runs, heavy tails', TRUE_OFFSET, SEEDS, 'power_offset', 0.015, heavy),
    World('auto of chinchilla, 48 runs', TRUE, grid(8, 6), 'auto', refits=AUTO),
    World('auto of chinchilla_tied, 48 runs', TRUE_TIED, grid(8, 6), 'auto', refits=AUTO),
    World('auto of chinchilla, 48 runs, 5% diverged', TRUE, grid(8, 6), 'auto', diverged=0.05, refits=AUTO,
          like='auto of chinchilla, 48 runs'),
    World('auto of power_offset, 30 runs', TRUE_OFFSET, SEEDS, 'auto', 0.015, refits=AUTO),
    World('auto of power, 30 runs', TRUE_POWER, SEEDS, 'auto', 0.015, refits=AUTO),
    World('auto of shifted_power, 30 runs', TRUE_SHIFTED, SEEDS, 'auto', 0.015, refits=AUTO),
    World('auto of power_offset, 30 runs, 5% diverged', TRUE_OFFSET, SEEDS, 'auto', 0.015, diverged=0.05, refits=AUTO,
          like='auto of power_offset, 30 runs'),
    World('auto of power_offset, 30 runs, heavy tails', TRUE_OFFSET, SEEDS, 'auto', 0.015, heavy, refits=AUTO),
    World('two chinchillas, the second saves 30%', TRUE, grid(8, 6), 'chinchilla', saves=0.7),
    World('two chinchillas, alike', TRUE, grid(8, 6), 'chinchilla', saves=1.0),
    World('two chinchillas, the second saves 30%, 5% diverged', TRUE, grid(8, 6), 'chinchilla', diverged=0.05,
          saves=0.7, like='two chinchillas, the second saves 30%'),
    World('two power_offsets, the second saves 30%', TRUE_OFFSET, SEEDS, 'power_offset', 0.015, saves=0.7),
    World('auto of two power_offsets, alike', TRUE_OFFSET, SEEDS, 'auto', 0.015, refits=AUTO, saves=1.0),
    World('IsoFLOP, 9 budgets, 9 sizes, 1/4 to 4', TRUE, isoflop(HOFFMANN, BUDGETS, 9, 4), 'chinchilla', 0.003),
    World('IsoFLOP, 5 budgets, 6 sizes, 1/3 to 3', TRUE, isoflop(HOFFMANN, BUDGETS[::2], 6, 3), 'chinchilla', 0.003),
    World('IsoFLOP, 5 budgets, 9 sizes, 1/8 to 8', TRUE, isoflop(HOFFMANN, BUDGETS[::2], 9, 8), 'chinchilla', 0.003),
    World('IsoFLOP, 5 budgets, 9 sizes, 1/4 to 4, off centre', TRUE, isoflop(HOFFMANN, BUDGETS[::2], 9, 4, 0.15),
          'chinchilla', 0.003),
    World('IsoFLOP, 9 budgets, sizes from a fixed list', TRUE, fixed_sizes(BUDGETS), 'chinchilla', 0.003),
    World('IsoFLOP, steep, 5 budgets, 9 sizes, 1/8 to 8', TRUE_STEEP, isoflop(STEEP, BUDGETS[::2], 9, 8),
          'chinchilla', 0.003),
    World('IsoFLOP, steep, 5 budgets, 9 sizes, 1/8 to 8, 0.03% noise', TRUE_STEEP,
          isoflop(STEEP, BUDGETS[::2], 9, 8), 'chinchilla', 0.0003),
    World('misfit: the exponent of N halves, 48 runs', KINK_N, grid(8, 6), 'chinchilla'),
    World('misfit: large models overfit, 48 runs', OVERFIT, grid(8, 6), 'chinchilla'),
    World('misfit: a kink, 30 runs', KINK_X, SEEDS, 'power_offset', 0.015),
    World('misfit: ever faster, 30 runs', FASTER_X, SEEDS, 'power_offset', 0.015),
    World('misfit: ever slower, 30 runs', SLOWER_X, SEEDS, 'power_offset', 0.015),
    World('auto of a misfit: large models overfit, 48 runs', OVERFIT, grid(8, 6), 'auto', refits=AUTO),
    World('auto of a misfit: a kink, 30 runs', KINK_X, SEEDS, 'auto', 0.015, refits=AUTO),
)
