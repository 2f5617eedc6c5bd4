"""The sweeps of `same_bits.py`: sweeps.py:branch, two lengths on one trunk; sweeps.py:packed, runs in one program."""

import pathlib

from vit_jax import sweeps

ARGS = ('branch', 'packed')


def get_sweep(arg):
  recipe = f'{pathlib.Path(__file__).with_name("recipes.py")}:{arg}'
  runs = {'branch': lambda: sweeps.branches([8, 12]),
          'packed': lambda: sweeps.product(sweeps.axis('optimizer.learning_rate', 1e-3, 3e-3), sweeps.seeds(2))}
  return sweeps.Sweep(recipe, runs[arg]())
