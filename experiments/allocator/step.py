"""Times the training step of a recipe with malloc as it is and as `vit_jax.host` sets it, one after the other.

  python experiments/allocator/step.py
"""

import resource
import subprocess
import sys
import time

PAIRS, STEPS = 3, 60


def measure(keep: bool) -> str:
  import jax

  from vit_jax import config, host
  from vit_jax.data import device_augment
  from vit_jax.training import config as run_config
  from vit_jax.training import run as run_lib
  from vit_jax.training import state
  from vit_jax.training.step import make_train_step
  if keep:
    host.keep_freed_memory()
  run = run_lib.prepare(run_config.cast(config.load_recipe('configs/fashion_mnist.py')))
  c = run.config
  train_step = jax.jit(make_train_step(run.model, c, run.steps, device_augment.augment(c.data.augment)),
                       donate_argnums=0)
  train_state = state.create(run.model, c, run.mesh)
  batches = run.data.train_batches(c.seed, 0, STEPS + 5)
  for step, batch in enumerate(batches):
    if step == 5:
      jax.block_until_ready(train_state)
      start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    train_state, numbers = train_step(train_state, run.place(batch))
    jax.block_until_ready(numbers)
  seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
  faults, system = after.ru_minflt - before.ru_minflt, after.ru_stime - before.ru_stime
  return (f'{STEPS * c.data.batch_size / seconds:,.0f} images/s, {faults / STEPS:,.0f} page faults and '
          f'{1e3 * system / STEPS:.1f} ms of system time a step')


if __name__ == '__main__':
  if len(sys.argv) > 1:
    print(measure(sys.argv[1] == 'keep'))
  else:
    for _ in range(PAIRS):
      for which in ('default', 'keep'):
        print(which, subprocess.check_output([sys.executable, __file__, which], text=True).strip(), flush=True)
