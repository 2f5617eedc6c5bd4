"""Do the 95% intervals hold the truth 95% of the time?

  python experiments/law_coverage/coverage.py

Each draw is a new set of runs from a known Chinchilla law (Hoffmann et al. 2022's coefficients) with Gaussian noise of
1% in log loss on a grid of sizes (16 x 15, and 8 x 6 for a small ladder), fitted and bootstrapped as
`vit_jax.law` does it. Counted: how often each coefficient's interval holds the true one; how often the compute-optimal
N and the loss at 10x the largest budget lie in theirs; and how often the interval of a new run holds a new noisy run.

Two hundred draws tell a share of 95% to within 3% only (two standard errors). So the width is shown as well: the median
interval (in logs) over 3.92 standard deviations of the estimates' errors over the draws, 1 for a normal estimate whose
interval is as wide as it should be.
"""

import argparse
import itertools

import numpy as np

from vit_jax.scaling import bootstrap, estimate, frontier
from vit_jax.scaling.minimize import Objective

TRUE = {'E': 1.69, 'A': 406.4, 'alpha': 0.34, 'B': 410.7, 'beta': 0.28}
NOISE = 0.01
GRIDS = ((16, 15), (8, 6))  # numbers of model sizes and of lengths


def law(params, examples):
  return TRUE['E'] + TRUE['A'] * params ** -TRUE['alpha'] + TRUE['B'] * examples ** -TRUE['beta']


def draw(seed, grid, objective, refits):
  """{quantity: (target, estimate, low, high)} of one draw."""
  random = np.random.default_rng(seed)
  sizes, lengths = np.geomspace(3e6, 1e9, grid[0]), np.geomspace(3e8, 3e10, grid[1])
  params, examples = (a.ravel() for a in np.meshgrid(sizes, lengths))
  loss = law(params, examples) * np.exp(NOISE * random.standard_normal(len(params)))
  fit = estimate.fit('chinchilla', {'params': params, 'examples': examples}, loss, objective)
  boot = bootstrap.run(fit, np.arange(len(loss)), refits, seed)
  out = {name: (TRUE[name], fit.coefficients[name], *interval) for name, interval in boot.interval().items()}
  budget, cost = np.array([10 * 6 * params.max() * examples.max()]), frontier.Cost()
  best = frontier.allocate(np.array([list(TRUE.values())]).T, budget, cost)
  true_n, true_d, true_loss = (float(a[0, 0]) for a in best)
  row = frontier.compute_optimal(fit, boot, budget, cost)[0]
  new_run = true_loss * np.exp(NOISE * random.standard_normal())
  for name, value in (('params', true_n), ('examples', true_d), ('loss', true_loss), ('loss_run', new_run)):
    out[f'{name} at 10x'] = (value, row[name.removesuffix('_run')], *row[f'{name}_ci95'])
  return out


def line(name, draws):
  """`alpha: 96.5%, width 1.03` of [draws, 4] numbers."""
  target, value, low, high = np.array(draws).T
  share = np.mean((low <= target) & (target <= high))
  width = np.median(np.log(high / low)) / (3.92 * np.std(np.log(value / target), ddof=1))
  return f'  {name}: {100 * share:.1f}%, width {width:.2f}'


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--draws', type=int, default=200)
  parser.add_argument('--refits', type=int, default=1000)
  arguments = parser.parse_args()
  for grid, name in itertools.product(GRIDS, ('log_huber', 'log_lsq')):
    rows = [draw(seed, grid, Objective(name), arguments.refits) for seed in range(arguments.draws)]
    print(f'{name}, {arguments.draws} draws of {grid[0] * grid[1]} runs, {arguments.refits} refits each:')
    print('\n'.join(line(key, [row[key] for row in rows]) for key in rows[0]), end='\n\n', flush=True)


if __name__ == '__main__':
  main()
