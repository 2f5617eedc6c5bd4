"""One encoder on icons of 50 concepts, for four objectives.

  python -m vit_jax.main --config=experiments/objectives_law/recipe.py:contrast --config.data.data_dir=DIR

A concept is the label of `classify` and the text of `contrast` and `caption`. `test` is an artist never seen. A linear
probe of 1,000 labelled pictures scores the features of the image encoder of each by one number.
"""

from vit_jax import config

LOSSES = {
    'classify': {},
    'reconstruct': {'decoder_width': 32, 'decoder_depth': 1, 'decoder_mlp_dim': 128, 'decoder_num_heads': 4},
    'contrast': {'name': 'softmax', 'scale': 14.3, 'width': 64, 'text.width': 32, 'text.depth': 1, 'text.mlp_dim': 128,
                 'text.num_heads': 4, 'text.pool': 'gap'},
    'caption': {},
}
ARGS = tuple(LOSSES)


def get_config(arg='classify'):
  c = config.defaults('vit', arg)
  c.model.patch_size, c.model.pool, c.model.depth = 8, 'gap', 3
  c.loss.update_from_flattened_dict(LOSSES[arg])
  c.data.source, c.data.channels = 'experiments.objectives_law.icons:most_drawn', 3
  c.data.val_examples = 1_000
  c.data.text.tokenizer, c.data.text.vocab_size, c.data.text.length = 'bpe', 400, 8
  c.data.batch_size = 128
  c.optimizer.weight_decay, c.optimizer.beta2 = 0.1, 0.95
  c.schedule.warmup_steps = 20
  c.evaluate.every, c.evaluate.probe = 100_000, 1_000  # at the end alone
  c.system.execution.scan = False  # three small layers: unrolled is faster on a CPU
  return c
