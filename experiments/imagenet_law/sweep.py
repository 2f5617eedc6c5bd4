"""ViT Ti to g at four lengths on ImageNet-21k; every size is one trunk with a cooldown branch a length.

  python -m vit_jax.plan --sweep=experiments/imagenet_law/sweep.py:small --tpu=v5e-16

The README has the commands that launch it. `small`: Ti, S, B. `large`: L, H, g, for v5e-128. `random`: both, on fake
pictures. Without an argument: both.
"""

from vit_jax import sweeps
from vit_jax.models import vit

RECIPE = 'experiments/imagenet_law/recipe.py'
STEPS = (10_000, 20_000, 40_000, 80_000)  # 41 to 328 million images: 3 to 23 epochs

ARGS = ('all', 'small', 'large', 'random')


def shape(name):
  return {f'model.{key}': value for key, value in vit.SIZES[name].items()}


def get_sweep(part='all'):
  sizes = {'small': ('Ti', 'S', 'B'), 'large': ('L', 'H', 'g')}.get(part, ('Ti', 'S', 'B', 'L', 'H', 'g'))
  recipe = f'{RECIPE}:random' if part == 'random' else RECIPE
  return sweeps.Sweep(recipe, sweeps.product([shape(name) for name in sizes], sweeps.branches(STEPS)))
