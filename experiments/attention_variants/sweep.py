"""Three seeds of one kind of attention.

  python -m vit_jax.sweep --sweep=experiments/attention_variants/sweep.py:local --workdir=runs/attention/local
"""

from vit_jax import sweeps

ARGS = ('full', 'local', 'linear')


def get_sweep(kind='full'):
  return sweeps.Sweep(f'experiments/attention_variants/recipe.py:{kind}', sweeps.product(sweeps.seeds(3)))
