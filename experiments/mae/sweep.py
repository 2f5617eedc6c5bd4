"""The same encoders on the same pictures, trained with labels and as masked autoencoders, at the same FLOPs.

  python -m vit_jax.sweep --sweep=experiments/mae/sweep.py --workdir=runs/mae/ladder
  python -m vit_jax.law runs/mae/ladder --form=power --x=flops --metric=probe/error --group=objective

A linear probe of 1,000 labelled pictures measures both by one number.
"""

from vit_jax import sweeps

RECIPE = 'experiments/mae/recipe.py'
HEAD_DIM = 8
OBJECTIVES = (
    {'objective': 'classify'},
    {'objective': 'reconstruct', 'loss.decoder_width': 32, 'loss.decoder_depth': 1, 'loss.decoder_mlp_dim': 128,
     'loss.decoder_num_heads': 4})


def shape(width):
  """Heads of one size, an MLP of four times the width, and a learning rate that falls as one over the width."""
  return {'model.width': width, 'model.mlp_dim': 4 * width, 'model.num_heads': width // HEAD_DIM,
          'optimizer.learning_rate': 0.144 / width}


def get_sweep():
  shapes = [shape(width) for width in (16, 32, 48)]
  runs = sweeps.product(OBJECTIVES, sweeps.isoflop((1e11, 2e11, 4e11), shapes),
                        [{'evaluate.probe': 1_000, 'schedule.warmup_steps': 40}])
  return sweeps.Sweep(RECIPE, runs)
