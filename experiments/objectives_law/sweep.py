"""The same encoders on the same pictures, trained for four objectives at the same FLOPs.

  python -m vit_jax.sweep --sweep=experiments/objectives_law/sweep.py:fit --workdir=runs/objectives_law
  python -m vit_jax.law runs/objectives_law --form=power --x=flops --metric=test/probe/error --group=objective

`fit`: what the laws are fitted to. `held_out`: a budget three times as large, of the smaller model, which they have to
predict.
FLOPs are those of the whole model in training, with its decoder or text tower.
"""

import importlib.util
import pathlib

from vit_jax import sweeps

RECIPE = 'experiments/objectives_law/recipe.py'
HEAD_DIM = 8
PARTS = {'fit': ((1e11, 3e11, 9e11), (24, 48)), 'held_out': ((3e12,), (24,))}  # budgets and widths
ARGS = tuple(PARTS)


def shape(width):
  """Heads of one size, an MLP of four times the width, and a learning rate that falls as one over the width."""
  return {'model.width': width, 'model.mlp_dim': 4 * width, 'model.num_heads': width // HEAD_DIM,
          'optimizer.learning_rate': 0.144 / width}


def objectives():
  """Each objective with its options, as the recipe has them."""
  spec = importlib.util.spec_from_file_location('recipe', pathlib.Path(__file__).with_name('recipe.py'))
  recipe = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(recipe)
  return recipe.LOSSES


def get_sweep(part='fit'):
  (budgets, widths), runs = PARTS[part], []
  for objective, loss in objectives().items():
    runs += [{'objective': objective} | {f'loss.{name}': value for name, value in loss.items()}]
  return sweeps.Sweep(RECIPE, sweeps.product(runs, sweeps.isoflop(budgets, list(map(shape, widths)))))
