"""ViT Ti to g at four lengths on ImageNet-21k; every size is one trunk with a cooldown branch a length.

  python -m vit_jax.plan --sweep=experiments/imagenet_law/sweep.py:small --tpu=v5e-16

The README has the commands that launch it. `small`: Ti, S, B. `large`: L, H, g, for v5e-128; their parameters are split
over 16 chips. `random`: both, on fake pictures. Without an argument: both.
"""

from vit_jax import sweeps
from vit_jax.models import vit

RECIPE = 'experiments/imagenet_law/recipe.py'
SMALL, LARGE = ('Ti', 'S', 'B'), ('L', 'H', 'g')
STEPS = (10_000, 20_000, 40_000, 80_000)  # 41 to 328 million images: 3 to 23 epochs

ARGS = ('all', 'small', 'large', 'random')


def size(name):
  shape = {f'model.{key}': value for key, value in vit.SIZES[name].items()}
  return shape | ({'system.mesh.fsdp': 16} if name in LARGE else {})  # `data` takes the other chips


def get_sweep(part='all'):
  names = {'small': SMALL, 'large': LARGE}.get(part, SMALL + LARGE)
  recipe = f'{RECIPE}:random' if part == 'random' else RECIPE
  return sweeps.Sweep(recipe, sweeps.product([size(name) for name in names], sweeps.branches(STEPS)))
