"""Learning rates x sizes x parametrisations on Fashion-MNIST.

  python -m vit_jax.sweep --sweep=experiments/lr_transfer/sweep.py:width --workdir=runs/lr_transfer_width --jobs=2
  python -m vit_jax.sweep --sweep=experiments/lr_transfer/sweep.py:depth --workdir=runs/lr_transfer_depth --jobs=2

`width`: 16 to 128, three layers. `depth`: 2 to 16 layers, 32 wide. The smallest size is the base, where the two
parametrisations are one: it is trained once.
"""

from vit_jax import sweeps

RECIPE = 'experiments/lr_transfer/recipe.py'
HEAD_DIM = 8
RATES = [0.1 / 2**k for k in range(8)]  # 0.1 to 0.0008
SIZES = {'width': [(16, 3), (48, 3), (128, 3)], 'depth': [(32, 2), (32, 4), (32, 8), (32, 16)]}

ARGS = tuple(SIZES)


def shape(width, depth):
  """Heads of one size, an MLP of four times the width; up to three layers an unrolled stack is faster on a CPU."""
  return {'model.width': width, 'model.depth': depth, 'model.mlp_dim': 4 * width,
          'model.num_heads': width // HEAD_DIM, 'system.execution.scan': depth > 3}


def ladder(sizes, rates):
  return sweeps.product([shape(*size) for size in sizes], sweeps.axis('optimizer.learning_rate', *rates))


def get_sweep(part='width'):
  base, *larger = SIZES[part]
  mup = {'parametrisation.name': 'mup', 'parametrisation.base_width': base[0], 'parametrisation.base_depth': base[1]}
  return sweeps.Sweep(RECIPE, sweeps.chain(
      ladder([base], RATES),
      ladder(larger, RATES[2:]),  # the best one is expected to fall as the size grows
      sweeps.product([mup], ladder(larger, RATES[:-2]))))  # and here to stay
