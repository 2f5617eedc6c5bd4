"""The pruned model, fine-tuned for two epochs, a third of what the whole one had.

  python -m vit_jax.main --config=experiments/pruning/finetune.py --workdir=runs/pruning/tuned
"""

import pathlib

from vit_jax import config


def get_config():
  c = config.load_recipe(pathlib.Path(__file__).with_name('recipe.py'))
  c.pretrained.path = 'runs/pruning/pruned'
  c.model.num_heads, c.model.head_dim, c.model.mlp_dim = 2, 16, 128  # what was left
  c.optimizer.learning_rate = 1e-3
  c.schedule.warmup_steps = 50
  c.train.epochs = 2
  return c
