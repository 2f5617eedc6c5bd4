"""A ViT of half a million parameters on Fashion-MNIST's 60,000 real pictures: about 20 minutes on two cores.

  python -m vit_jax.main --config=configs/fashion_mnist.py

Reached 90.20% on the 10,000 test images (experiments/recipes); it overfits by then, so regularise it to do better.

Reads Debian's package (apt-get install dataset-fashion-mnist), or TFDS's copy
(uv run --extra prepare python -m vit_jax.data.prepare --name=fashion_mnist).
"""

from vit_jax import config


def get_config():
  c = config.defaults('vit')
  c.model.patch_size = 7
  c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 96, 5, 288, 3
  c.model.pool = 'gap'
  c.data.source = 'fashion_mnist'
  c.data.batch_size, c.data.val_examples = 64, 2_000
  c.data.augment.flip = True
  c.loss.label_smoothing = 0.1
  c.optimizer.learning_rate, c.optimizer.weight_decay = 2e-3, 0.1
  c.schedule.warmup_steps = 500
  c.train.epochs = 25
  c.system.execution.scan = False  # five small layers: unrolled is faster on a CPU
  return c
