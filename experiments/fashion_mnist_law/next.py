"""The compute-optimal run at 2e12 training FLOPs. Written by vit_jax.law.

  python -m vit_jax.main --config=experiments/fashion_mnist_law/next.py

Predicted loss (val): 0.28867. 95% interval of this run: 0.26569 to 0.35136; of the law there: 0.26747 to 0.34677.

The law: loss = E + A/N^alpha + B/D^beta; E = 0.178115, A = 8.92309, alpha = 0.547356, B = 28.6461, beta = 0.432214.
Form chinchilla, fitted to n = 50 runs (log_huber); N counts params. This run costs 0.523 times the largest fitted one.
Made by

  python -m vit_jax.law experiments/fashion_mnist_law/results/runs --form=chinchilla --metric=loss --objective=log_huber --delta=0.001 --bootstrap=1000 --seed=0 '--holdout=model.width>=96 or step>=8000' --budget=2e12 --write_config=experiments/fashion_mnist_law/next.py

The law's optimum is N* = 1.379e4, D* = 1.488e6 (C = 101.6 N^0.9956 D, from the points (within 0.082%)). The nearest
shape of the ladder has N = 1.11e4; the budget then buys D = 1.846e6 examples, 34.2 epochs, in 28847 steps. Learning
rate: 0.2 width^-1, exactly through the best runs at 36 sizes and lengths.
Not covered by a rule: parametrisation.name standard, as in the nearest run (of None, standard).
"""

from vit_jax import config


def get_config():
  c = config.defaults('vit')
  c.model.patch_size = 7
  c.model.width = 16
  c.model.depth = 3
  c.model.mlp_dim = 64
  c.model.num_heads = 2
  c.model.pool = 'gap'
  c.data.source = 'fashion_mnist'
  c.data.batch_size = 64
  c.data.augment.flip = True
  c.optimizer.learning_rate = 0.0125
  c.schedule.name = 'wsd'
  c.schedule.warmup_steps = 200
  c.train.flops = 2000000000000.0
  c.evaluate.every = 1000
  c.evaluate.batch_size = 500
  c.system.execution.scan = False
  return c
