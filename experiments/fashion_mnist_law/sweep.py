"""Model sizes x lengths x seeds on Fashion-MNIST; every (size, seed) is one trunk with a cooldown branch a length.

  python -m vit_jax.sweep --sweep=experiments/fashion_mnist_law/sweep.py:fit --workdir=runs/fashion_mnist_law

`fit`: what the law is fitted to. `largest`: what it has to predict, the largest model and the longest runs. `unique`:
fewer different images, for data_constrained. `laptop`: a small ladder of five minutes. `grid0` to `grid4`: the grids of
design_loop, with seeds of their own. Without a part: fit and largest.
"""

from vit_jax import sweeps

RECIPE = 'experiments/fashion_mnist_law/recipe.py'
HEAD_DIM = 8

GRIDS = tuple(f'grid{k}' for k in range(5))
ARGS = ('all', 'fit', 'largest', 'unique', 'laptop', *GRIDS)


def shape(width):
  """Heads of one size, an MLP of four times the width, and the learning rate that falls as one over the width."""
  return {'model.width': width, 'model.mlp_dim': 4 * width, 'model.num_heads': width // HEAD_DIM,
          'optimizer.learning_rate': 0.2 / width}


def ladder(widths, steps, seeds, first_seed=0):
  return sweeps.product([shape(width) for width in widths], sweeps.seeds(seeds, first_seed), sweeps.branches(steps))


def get_sweep(part='all'):
  fit = ladder((16, 24, 32, 48, 64), (1000, 1400, 2000, 2800, 4000), seeds=2)
  largest = sweeps.chain(ladder((16, 24, 32, 48, 64), (8000,), seeds=2),
                         ladder((96,), (1000, 1400, 2000, 2800, 4000, 8000), seeds=2))
  unique = sweeps.product(sweeps.axis('data.unique_examples', 2_000, 6_000, 18_000),
                          ladder((16, 32, 64), (1000, 2000, 4000), seeds=1))
  grids = {name: ladder((16, 24, 32, 48), (1000, 1400, 2000, 2800, 4000), seeds=2, first_seed=2 * k)
           for k, name in enumerate(GRIDS)}
  parts = {'fit': fit, 'largest': largest, 'all': sweeps.chain(fit, largest), 'unique': unique,
           'laptop': ladder((16, 24, 32, 48), (1000, 1400, 2000, 2800), seeds=1), **grids}
  return sweeps.Sweep(RECIPE, parts[part])
