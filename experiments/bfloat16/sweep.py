"""The same runs in float32 and in bfloat16: a model of the Fashion-MNIST ladder, five seeds each.

  python -m vit_jax.sweep --sweep=experiments/bfloat16/sweep.py --workdir=runs/bfloat16
"""

from vit_jax import sweeps

RECIPE = 'experiments/fashion_mnist_law/recipe.py'
WIDTH, STEPS, SEEDS = 32, 2_000, 5


def get_sweep():
  base = {'model.width': WIDTH, 'model.mlp_dim': 4 * WIDTH, 'model.num_heads': WIDTH // 8,
          'optimizer.learning_rate': 0.2 / WIDTH, 'train.steps': STEPS}
  return sweeps.Sweep(RECIPE, sweeps.product([base], sweeps.axis('model.dtype', 'float32', 'bfloat16'),
                                             sweeps.seeds(SEEDS)))
