"""Trunks at a constant rate, cooldowns of three lengths, and cosine schedules that no law of the others has seen.

  python -m vit_jax.sweep --sweep=experiments/curve_law/sweep.py --workdir=runs/curve_law
"""

from vit_jax import sweeps

RECIPE = 'experiments/curve_law/recipe.py'
SEEDS = 3


def get_sweep():
  cosine = sweeps.product(sweeps.axis('schedule.name', 'cosine'), sweeps.axis('train.steps', 1400, 2800))
  runs = sweeps.chain(sweeps.branches((700, 1400, 2800)), cosine)
  return sweeps.Sweep(RECIPE, sweeps.product(sweeps.seeds(SEEDS), runs))
