"""Model sizes x pairs seen x batch sizes on icons; the lengths of a size and batch are branches of one trunk.

  python -m vit_jax.sweep --sweep=experiments/pairs_law/sweep.py:fit --workdir=runs/pairs_law

`fit`: what the laws are fitted to. `held_out`: what they have to predict, the largest model and the longest runs.
`long_fit` and `long_held_out` are the same of four times the pairs, in batches half as large.
"""

from vit_jax import sweeps

RECIPE = 'experiments/pairs_law/recipe.py'
HEAD_DIM = 8
RATE = 0.2, 128  # the learning rate is 0.2 / width in batches of 128
PAIRS = {'': (16_384, 32_768, 65_536), 'long_': (65_536, 131_072, 262_144)}
BATCH = {'': 128, 'long_': 64}
ARGS = tuple(f'{which}{part}' for which in PAIRS for part in ('fit', 'held_out'))


def shape(width):
  """Both towers of one width, heads of one size, and a learning rate that falls as one over the width."""
  tower = {'width': width, 'mlp_dim': 4 * width, 'num_heads': width // HEAD_DIM}
  return {f'{room}.{name}': value for room in ('model', 'loss.text') for name, value in tower.items()} | {
      'optimizer.learning_rate': RATE[0] / width}


def ladder(widths, pairs, batch):
  """Each width at each number of pairs, in batches of one size; the rate grows with its square root."""
  shapes = [shape(width) | {'data.batch_size': batch} for width in widths]
  for one in shapes:
    one['optimizer.learning_rate'] *= (batch / RATE[1]) ** 0.5
  return sweeps.product(shapes, sweeps.branches([n // batch for n in pairs]))


def get_sweep(part='fit'):
  which = 'long_' if part.startswith('long_') else ''
  pairs, batch = PAIRS[which], BATCH[which]
  other_batches = [ladder((24, 48), pairs[1:], other) for other in (batch // 2, 2 * batch)]
  parts = {
      'fit': sweeps.chain(ladder((16, 24, 32, 48), pairs, batch), *other_batches),
      'held_out': sweeps.chain(ladder((64,), pairs, batch), ladder((32, 48), (2 * pairs[-1],), batch))}
  return sweeps.Sweep(RECIPE, parts[part.removeprefix(which)])
