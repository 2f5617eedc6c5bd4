"""A training step of one run, and of several that are packed into one program, on one CPU core.

  python experiments/speed/packing.py

The ladder of experiments/fashion_mnist_law: patches of 7 x 7, three layers, batches of 64. One call of ten steps of
each in turn, as runs make them; medians.
"""

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
  from vit_jax.training import dispatch, packed, state
  host.hush_absent_tpu()
  host.keep_freed_memory()
  for width in WIDTHS:
    runs = [prepared(width, seed) for seed in range(max(PACKED))]
    run, calls, now = runs[0], {}, {}
    for k in (1, *PACKED):
      resident = dispatch.Resident(runs[:k], STEPS, packed=k > 1)
      states = [state.create(r.model, r.config, r.mesh) for r in runs[:k]]
      now[k] = packed._stack(states) if k > 1 else states[0]
      calls[k] = host.compile_step(resident.lower(now[k]), run.platform), resident
    times = {k: [] for k in calls}
    for turn in range(ROUNDS + 1):
      for k, (call, resident) in calls.items():
        begins = time.perf_counter()
        now[k], told = call(now[k], *resident.operands(turn * STEPS, STEPS))
        jax.block_until_ready(told)
        if turn:
          times[k].append((time.perf_counter() - begins) / k / STEPS)
    said = [f'{k} packed {1e3 * statistics.median(times[k]):.2f} ms a run, '
            f'{statistics.median(a / b for a, b in zip(times[1], times[k])):.2f} times as fast' for k in PACKED]
    print(f'width {width}, {run.params:,} parameters, {run.flops_per_example_train / 1e6:.2f} MFLOPs an image: alone '
          f'{1e3 * statistics.median(times[1]):.2f} ms; {"; ".join(said)}', flush=True)


if __name__ == '__main__':
  main()
