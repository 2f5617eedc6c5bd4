"""A training step of one run, and of several that are packed into one program, on one CPU core.

  python experiments/speed/packing.py > experiments/speed/results/packing.log

The ladder of experiments/fashion_mnist_law: patches of 7 x 7, three layers, batches of 64. Ten steps of each in turn;
medians. (One step of each in turn would be unfair: caches and freed memory are then always another's.)
"""

import itertools
import os
import statistics
import time

WIDTHS, PACKED, ROUNDS, STEPS = (16, 24, 32, 48, 64, 96), (4, 8), 5, 10


def prepared(width, seed):
  from vit_jax import config
  from vit_jax.training import config as run_config
  from vit_jax.training import run as run_lib
  c = config.load_recipe('experiments/fashion_mnist_law/recipe.py')
  c.model.width, c.model.mlp_dim, c.model.num_heads, c.seed, c.train.steps = width, 4 * width, width // 8, seed, 1000
  return run_lib.prepare(run_config.cast(c))


def main():
  os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
  import jax

  from vit_jax import host
  from vit_jax.training import packed, state
  from vit_jax.training.step import trace
  host.hush_absent_tpu()
  host.keep_freed_memory()
  for width in WIDTHS:
    runs = [prepared(width, seed) for seed in range(max(PACKED))]
    run, own = runs[0], lambda run: state.create(run.model, run.config, run.mesh)
    feeds = [list(itertools.islice(run.train_batches(0, lambda errors: None), STEPS)) for run in runs]
    alone = trace(run.model, run.carried_out, run.steps, run.mesh).lower().compile()
    sides = {1: (lambda now, batches, alone=alone: alone(now, batches[0]), own(run))}
    sides |= {k: (packed._together(run), packed._stack([own(r) for r in runs[:k]])) for k in PACKED}
    now, times = {k: start for k, (_, start) in sides.items()}, {k: [] for k in sides}
    for turn in range(ROUNDS + 1):
      for k, (step, _) in sides.items():
        begins = time.perf_counter()
        for i in range(STEPS):
          now[k], told = step(now[k], [feed[i] for feed in feeds[:k]])
          jax.block_until_ready(told)
        if turn:
          times[k].append((time.perf_counter() - begins) / k / STEPS)
    said = [f'{k} packed {1e3 * statistics.median(times[k]):.2f} ms a run, '
            f'{statistics.median(a / b for a, b in zip(times[1], times[k])):.2f} times as fast' for k in PACKED]
    print(f'width {width}, {run.params:,} parameters, {run.flops_per_example_train / 1e6:.2f} MFLOPs an image: alone '
          f'{1e3 * statistics.median(times[1]):.2f} ms; {"; ".join(said)}', flush=True)


if __name__ == '__main__':
  main()
