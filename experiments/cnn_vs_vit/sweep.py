"""Kinds of network x numbers of different training images x seeds, on Fashion-MNIST.

  python -m vit_jax.sweep --sweep=experiments/cnn_vs_vit/sweep.py:cnn-rates --workdir=runs/cnn_vs_vit/cnn-rates
  python -m vit_jax.sweep --sweep=experiments/cnn_vs_vit/sweep.py:cnn --workdir=runs/cnn_vs_vit/cnn
  python -m vit_jax.sweep --sweep=experiments/cnn_vs_vit/sweep.py:cnn-lengths --workdir=runs/cnn_vs_vit/cnn-lengths

The same for vit, deit, hybrid and swin; deit learns from the runs of cnn, which go first. `rates`: learning rates on
one of the subsets, with a seed of their own (`rates.py` says which is best). `lengths`: the largest subset for fewer
and for more steps, as branches of one trunk per seed.
"""

import pathlib

from vit_jax import sweeps
from vit_jax.errors import UserError

RUNS = pathlib.Path('runs/cnn_vs_vit')
SUBSETS, SEEDS = (500, 2_000, 8_000, 32_000), 3  # of 54,000; nested, and classes are as frequent in each
LENGTHS, LENGTHS_SEEDS = (1_000, 2_000, 4_000, 8_000), 3
RATES, TUNED_ON, TUNING_SEED = (1e-3, 3e-3, 1e-2, 3e-2), 8_000, 100
BEST = {'cnn': 1e-2, 'vit': 3e-3, 'deit': 3e-3, 'hybrid': 3e-3, 'swin': 1e-2}  # by rates.py

ARGS = [f'{kind}{part}' for kind in BEST for part in ('', '-rates', '-lengths')]


def taught_by(runs):
  """The same runs, each with the CNN of the same subset and seed as its teacher."""
  def teacher(run):
    name = f'unique_examples{run["data.unique_examples"]}_seed{run["seed"]}'
    found = sorted((RUNS / 'cnn').glob(f'{name}-*'))
    if len(found) != 1:
      raise UserError(f'{len(found)} runs {name} in {RUNS}/cnn: the sweep of the CNN goes first')
    return {'distill.teacher': str(found[0])}
  return [run | teacher(run) for run in runs]


def get_sweep(part):
  kind, _, what = part.partition('-')
  if what == 'rates':
    runs = sweeps.product(sweeps.axis('data.unique_examples', TUNED_ON),
                          sweeps.axis('optimizer.learning_rate', *RATES), sweeps.seeds(1, TUNING_SEED))
  elif what == 'lengths':
    runs = sweeps.product(sweeps.axis('optimizer.learning_rate', BEST[kind]),
                          sweeps.axis('data.unique_examples', SUBSETS[-1]), sweeps.seeds(LENGTHS_SEEDS),
                          sweeps.branches(LENGTHS))
  else:
    runs = sweeps.product(sweeps.axis('optimizer.learning_rate', BEST[kind]),
                          sweeps.axis('data.unique_examples', *SUBSETS), sweeps.seeds(SEEDS))
  return sweeps.Sweep(f'experiments/cnn_vs_vit/recipe.py:{kind}', taught_by(runs) if kind == 'deit' else runs)
