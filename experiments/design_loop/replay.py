"""Does `law --design`, in rounds, end with a narrower interval than a grid of equal FLOPs? A replay without training.

  python experiments/design_loop/replay.py

The 72 runs of experiments/fashion_mnist_law are the world: six sizes, six lengths and two seeds, of which each (size,
seed) is a trunk with a branch a length. A run that a design asks for is looked up, and paid with its FLOPs; branches of
a trunk share its stable part. The loss of the largest model at the longest length is the target, and these two runs
cannot be bought. Each of five repeats has its own order of the seeds of each size. The loop starts from nothing: the
first third of the budget is designed from assumed coefficients, the others from the law of what was bought so far. The
grid is the rectangle of the smallest sizes and shortest lengths, with one or two seeds, that costs most within the
budget.

Two widths of the interval at the target are compared: that of the law, which resamples 4 to 12 trunks, and that which
the design's linear account gives the same runs, around the law of all 72 runs.
"""

import argparse
import itertools

import numpy as np

from vit_jax.errors import UserError
from vit_jax.scaling import analysis, bootstrap, design, estimate, points, target
from vit_jax.scaling.frontier import Cost

RUNS = 'experiments/fashion_mnist_law/results/runs'
ASSUMED = 'E=0.2,A=20,alpha=0.5,B=60,beta=0.45,sigma=0.03'
COOLDOWN, ROUNDS, REPEATS = 0.3, 3, 5
MOST_EXACT = 6  # runs; a law of five coefficients needs more


class World:
  """The runs that can be bought, and what was bought: {(params, seed): lengths}."""

  def __init__(self, loaded: points.Points, order: np.random.Generator):
    columns, seeds = loaded.columns, [int(row['seed']) for row in loaded.rows]
    self.loaded = loaded
    self.index = {key: i for i, key in enumerate(zip(columns['params'], seeds, columns['examples']))}
    self.sizes, self.lengths = np.unique(columns['params']), np.unique(columns['examples'])
    self.target = {'params': float(self.sizes[-1]), 'examples': float(self.lengths[-1])}
    self.per_example = dict(zip(columns['params'], columns['flops'] / columns['examples']))
    self.seeds = {size: order.permutation(2).tolist() for size in self.sizes}
    self.bought: dict = {}

  def cost(self, trunks: dict) -> float:
    return paid(trunks, self.per_example)

  def buy(self, trunks: tuple[design.Trunk, ...], budget: float) -> None:
    """Buys designed trunks while the FLOPs of all stay within the budget; a size has two seeds at most."""
    for trunk in trunks:
      size = float(self.sizes[np.argmin(np.abs(np.log(self.sizes / trunk.params)))])
      new = next((seed for seed in self.seeds[size] if (size, seed) not in self.bought), None)
      lengths = {d for d in trunk.examples if (size, d) != tuple(self.target.values())}
      tried = self.bought | {(size, new): lengths}
      if new is not None and lengths and self.cost(tried) <= budget:
        self.bought = tried

  def left(self) -> list[float]:
    """The sizes of which a seed was not bought."""
    return [size for size in self.sizes if any((size, seed) not in self.bought for seed in (0, 1))]

  def law(self, trunks) -> analysis.Analysis:
    chosen = [self.index[n, seed, d] for (n, seed), some in trunks.items() for d in some]
    return analysis.analyse(self.loaded.take(np.array(sorted(chosen))), analysis.Settings('chinchilla'))

  def grid(self, budget: float) -> dict:
    """The rectangle that costs most."""
    best = {}
    for i, j, seeds in itertools.product(range(2, len(self.sizes)), range(2, len(self.lengths) + 1), (1, 2)):
      trunks = {(n, seed): set(self.lengths[:j]) for n in self.sizes[:i] for seed in self.seeds[n][:seeds]}
      if self.cost(best) < self.cost(trunks) <= budget:
        best = trunks
    return best


def paid(trunks: dict, per_example: dict) -> float:
  """The FLOPs of {(params, seed): lengths}, from those of an example by params."""
  return sum(per_example[n] * ((1 - COOLDOWN) * max(some) + COOLDOWN * sum(some)) for (n, _), some in trunks.items())


def loop(world: World, budget: float) -> analysis.Analysis:
  """Designs, buys and fits in rounds."""
  form, cost = estimate.form_class('chinchilla'), Cost(float(np.mean([c / n for n, c in world.per_example.items()])))
  law = design.assume(ASSUMED, form, world.sizes, world.lengths)
  for spent in np.linspace(budget / ROUNDS, budget, ROUNDS):
    while left := world.left():
      before = len(world.bought)
      try:
        found = design.choose(law, world.target, left, world.lengths, cost, spent - world.cost(world.bought), COOLDOWN)
      except UserError:  # less is left than the cheapest run costs
        break
      world.buy(found.trunks, spent)
      if len(world.bought) == before:
        break
    if sum(map(len, world.bought.values())) > MOST_EXACT and len(world.bought) >= bootstrap.FEWEST_CLUSTERS:
      fitted = world.law(world.bought)
      law = design.of_fit(fitted.fit, fitted.points.clusters)
  return world.law(world.bought)


def truth_of(loaded: points.Points) -> design.Law:
  """The law of all runs, around which the linear account is taken for both."""
  fit = estimate.fit('chinchilla', loaded.columns, loaded.y)
  known = ','.join(f'{name}={value!r}' for name, value in (fit.coefficients | {'sigma': fit.sigma}).items())
  return design.assume(known, estimate.form_class('chinchilla'),
                       *(np.unique(loaded.columns[name]) for name in ('params', 'examples')))


def describe(name: str, fitted: analysis.Analysis, trunks: dict, flops: float, aim: dict, measured: float,
             truth: design.Law) -> tuple[str, tuple]:
  """Words, and (the law's width at the target in logs, the linear one, the error there, whether it is inside)."""
  row, = target.predict(fitted, [aim])
  (low, high), error = row['ci95'], row['predicted'] / measured - 1
  inside = low <= measured <= high
  linear = 2 * np.log(design.expected(truth, aim, [
      design.Trunk(size, tuple(sorted(some)), 0.0) for (size, _), some in trunks.items()], COOLDOWN))
  return (f'  {name}: {len(fitted.points)} runs on {len(trunks)} trunks, {flops:.3g} FLOPs: {row["predicted"]:.4f} '
          f'({low:.4f} to {high:.4f}), {100 * error:+.1f}%{"" if inside else ", outside"}; '
          f'linear +-{50 * linear:.1f}%', (float(np.log(high / low)), linear, abs(error), inside))


def compare(rows: list, where: str = '') -> None:
  """Prints the ratios of the widths and the errors, for the figures of (grid, loop) in each repeat."""
  of_grid, of_loop = np.array(rows).transpose(1, 2, 0)
  for k, name in enumerate(('law', 'linear')):
    ratios = of_grid[k] / of_loop[k]
    print(f'{where}{name}: the interval of the loop is {np.exp(np.mean(np.log(ratios))):.2f} times '
          f'narrower ({", ".join(f"{ratio:.2f}" for ratio in ratios)})')
  print(f'{where}mean error of the loop {100 * of_loop[2].mean():.1f}%, of the grid {100 * of_grid[2].mean():.1f}%; '
        f'inside {of_loop[3].sum():g} and {of_grid[3].sum():g} of {len(rows)}')


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--budgets', default='6e12,1.2e13,2.4e13')
  arguments = parser.parse_args()
  loaded = points.load([RUNS])
  truth = truth_of(loaded)
  for budget in map(float, arguments.budgets.split(',')):
    rows = []
    for repeat in range(REPEATS):
      world = World(loaded, np.random.default_rng(repeat))
      grid, fitted = world.grid(budget), loop(world, budget)
      measured = np.mean([loaded.y[world.index[world.target['params'], seed, world.target['examples']]]
                          for seed in (0, 1)])
      both = [describe(name, law, trunks, world.cost(trunks), world.target, measured, truth)
              for name, law, trunks in (('grid', world.law(grid), grid), ('loop', fitted, world.bought))]
      print(f'budget {budget:.3g}, repeat {repeat}', *(words for words, _ in both), sep='\n', flush=True)
      rows.append([figures for _, figures in both])
    compare(rows, f'budget {budget:.3g}, ')
    print(flush=True)


if __name__ == '__main__':
  main()
