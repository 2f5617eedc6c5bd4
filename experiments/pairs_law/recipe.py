"""Two towers on the icons of 148 artists, in English: the base of the runs of this law.

  python -m vit_jax.main --config=experiments/pairs_law/recipe.py --config.data.data_dir=DIR

`val` is of the training artists, `test` is all of an artist never seen (Hugeicons). No augmentation: a run sees each
picture twice at most. Sizes, batches and learning rates are those of sweep.py.
"""

from vit_jax import config

ARGS = ()


def get_config(arg=''):
  del arg
  c = config.defaults('vit', 'contrast')
  c.model.patch_size, c.model.pool, c.model.depth = 8, 'gap', 3
  c.loss.name, c.loss.scale, c.loss.width, c.loss.text.pool = 'softmax', 14.3, 64, 'gap'
  c.loss.text.depth = 1
  c.data.source, c.data.channels, c.data.val_examples = 'icons@Hugeicons', 3, 2_048
  c.data.text.tokenizer, c.data.text.vocab_size, c.data.text.length = 'bpe', 1_024, 8
  c.data.batch_size = 128
  c.optimizer.weight_decay, c.optimizer.beta2 = 0.1, 0.95
  c.schedule.warmup_steps = 40
  c.evaluate.every = 100_000  # at the end alone
  c.system.execution.scan = False  # a few small layers: unrolled is faster on a CPU
  return c
