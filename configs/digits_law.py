"""The first law: how the loss on scanned digits falls with the number of training pictures. Minutes, no download.

  python -m vit_jax.sweep --sweep=digits_law
  python -m vit_jax.law runs/digits_law --form=power --x=unique_examples --holdout='unique_examples>=960' \
      --out=runs/digits_law/law

The sweep trains one small ViT on 60, 120, 240, 480 and 960 of the digits, with four seeds each. The law has one input
and a range of a factor of 16, so these 20 runs tell its exponent (experiments/digits_law).
"""

from vit_jax import config, sweeps


def get_config():
  c = config.defaults('vit')
  c.model.patch_size, c.model.pool = 2, 'gap'
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 48, 2, 96, 4
  c.data.source, c.data.batch_size, c.data.val_examples = 'digits', 64, 400
  c.loss.label_smoothing = 0.1
  c.optimizer.learning_rate, c.optimizer.weight_decay = 3e-3, 0.3
  c.schedule.warmup_steps = 50
  c.train.steps = 1_000
  c.evaluate.every = 1_000
  c.system.execution.scan = False  # two small layers: unrolled is faster on a CPU
  return c


def get_sweep():
  return sweeps.Sweep('digits_law', sweeps.product(
      sweeps.axis('data.unique_examples', 60, 120, 240, 480, 960), sweeps.seeds(4)))
