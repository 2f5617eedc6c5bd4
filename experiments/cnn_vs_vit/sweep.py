"""Kinds of network x numbers of different training images x seeds, on Fashion-MNIST.

  python -m vit_jax.sweep --sweep=experiments/cnn_vs_vit/sweep.py:KIND-rates --workdir=runs/cnn_vs_vit/KIND-rates
  python -m vit_jax.sweep --sweep=experiments/cnn_vs_vit/sweep.py:KIND --workdir=runs/cnn_vs_vit/KIND

KIND is cnn, vit, deit, hybrid or swin; deit learns from the runs of cnn, which go first. `rates`: learning rates on two
of the subsets, with a seed of their own; `table.py rates` says which is best on validation.
"""

import pathlib

from vit_jax import sweeps
from vit_jax.errors import UserError

RUNS = pathlib.Path('runs/cnn_vs_vit')
SUBSETS, SEEDS = (500, 2_000, 8_000, 32_000), 3  # of 54,000; nested, and classes are as frequent in each
RATES, TUNED_ON, TUNING_SEED = (1e-3, 3e-3, 1e-2), (2_000, 32_000), 100
BEST = {}


def taught_by(runs):
  """The same runs, each with the CNN of the same subset as its teacher: that of its seed, or else of seed 0."""
  def teacher(run):
    seed = run['seed'] % TUNING_SEED
    found = sorted((RUNS / 'cnn').glob(f'unique_examples{run["data.unique_examples"]}_seed{seed}-*'))
    if len(found) != 1:
      raise UserError(f'{len(found)} runs of the CNN with {run["data.unique_examples"]:,} images and seed {seed} in '
                      f'{RUNS}/cnn: its sweep goes first')
    return {'distill.teacher': str(found[0])}
  return [run | teacher(run) for run in runs]


def get_sweep(part):
  kind, _, tuning = part.partition('-')
  if tuning:
    runs = sweeps.product(sweeps.axis('data.unique_examples', *TUNED_ON),
                          sweeps.axis('optimizer.learning_rate', *RATES), sweeps.seeds(1, TUNING_SEED))
  else:
    runs = sweeps.product(sweeps.axis('optimizer.learning_rate', BEST[kind]),
                          sweeps.axis('data.unique_examples', *SUBSETS), sweeps.seeds(SEEDS))
  return sweeps.Sweep(f'experiments/cnn_vs_vit/recipe.py:{kind}', taught_by(runs) if kind == 'deit' else runs)
