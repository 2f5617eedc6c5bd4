"""What the host costs: the loop around a step, starting, help, scoring, predicting, a law.

  python experiments/speed/host.py

The loop: a ViT of 20 ms a step on Fashion-MNIST trains 1,000 steps as a run does (batches, a log row each 20 steps,
two checkpoints), in turn with the bare compiled step on batches that lie ready; the evaluation at the end does not
count.
Starting: from the command to the first step, with no cache of compiled programs; the second of two tries, so that
files and compiled Python lie in memory.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

STEPS, ROUNDS = 1_000, 5
PROGRAMS = ('main', 'sweep', 'law', 'plan', 'predict', 'convert', 'prune')


def recipe():
  from vit_jax import config
  c = config.defaults('vit')
  c.model.patch_size, c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 7, 64, 4, 256, 4
  c.model.pool = 'gap'
  c.data.source, c.data.batch_size, c.data.augment.flip, c.data.augment.crop = 'fashion_mnist', 64, True, 'pad'
  c.system.execution.scan, c.train.steps = False, STEPS
  c.evaluate.every, c.evaluate.batch_size, c.system.save_every = STEPS, 500, STEPS // 2
  return c


def loop_cost(folder):
  """(ms of a bare step, ms of a step of a run) of each round."""
  import collections
  import io

  import jax
  from rich.console import Console

  from vit_jax import host, records
  from vit_jax.training import config as run_config
  from vit_jax.training import in_flight, loop, state
  from vit_jax.training import run as run_lib
  from vit_jax.training.display import Display
  from vit_jax.training.step import trace
  host.hush_absent_tpu()
  host.keep_freed_memory()
  run = run_lib.prepare(run_config.cast(recipe()))
  step = host.compile_step(trace(run.model, run.resolved, run.steps, run.mesh).lower(), run.platform)
  batches = list(run.train_batches(0, lambda errors: None))[:20]
  out = []
  for turn in range(ROUNDS + 1):
    now, flying = state.create(run.model, run.config, run.mesh), collections.deque()
    jax.block_until_ready(now)
    begins = time.perf_counter()
    for i in range(STEPS):
      now, told = step(now, batches[i % 20])
      flying.append(told)
      if len(flying) > in_flight.AHEAD:
        jax.block_until_ready(flying.popleft())
    jax.block_until_ready(now)
    bare = (time.perf_counter() - begins) / STEPS
    workdir = pathlib.Path(folder, str(turn))
    loop.train(run, workdir, Display(Console(file=io.StringIO())))
    spent = records.read_rows(workdir / records.EVENTS)[-1]['seconds_so_far']
    if turn:
      out.append((1e3 * bare, 1e3 * (spent['step'] + spent['data'] + spent['save']) / STEPS))
  return out


def first_step(folder):
  """Seconds from the command to the first logged step of the quickstart."""
  for turn in range(2):
    workdir, begins = pathlib.Path(folder, f'quickstart{turn}'), time.time()
    subprocess.run([sys.executable, '-m', 'vit_jax.main', '--config=configs/quickstart.py', '--config.train.epochs=0',
                    '--config.train.steps=60', '--config.system.log_every=1', f'--workdir={workdir}'], check=True,
                   capture_output=True)
    events = [json.loads(line) for line in (workdir / 'events.jsonl').read_text().splitlines()]
    took = next(event['time'] for event in events if event['event'] == 'train') - begins
  return took


def seconds(*command):
  begins = time.perf_counter()
  done = subprocess.run([sys.executable, '-m', *map(str, command)], capture_output=True)
  assert done.returncode == 0, done.stderr
  return time.perf_counter() - begins


def scoring(run):
  """(images/s scored on the test split, images/s predicted) of a finished run; the second time, compiled."""
  import numpy as np

  from vit_jax.inspection import evaluation
  from vit_jax.training import trained
  speeds = []
  for _ in range(2):
    begins = time.perf_counter()
    found = evaluation.evaluate(str(run), 'test')
    speeds.append(len(found.predictions.labels) / (time.perf_counter() - begins))
  model, pictures = trained.load(run), list(np.random.default_rng(0).integers(0, 256, (2_000, 28, 28, 1), np.uint8))
  for _ in range(2):
    begins = time.perf_counter()
    model(pictures)
    took = time.perf_counter() - begins
  return speeds[-1], len(pictures) / took


def main():
  print(f'{os.cpu_count()} cores')
  with tempfile.TemporaryDirectory() as folder:
    pairs = loop_cost(folder)
    ratios = sorted(ours / bare for bare, ours in pairs)
    bare, whole = (statistics.median(values) for values in zip(*pairs))
    print(f'the loop: {bare:.2f} ms a bare step, {whole:.2f} ms in a run; {statistics.median(ratios):.3f} times '
          f'({ratios[0]:.3f} to {ratios[-1]:.3f}, {ROUNDS} pairs of {STEPS} steps)', flush=True)
    print(f'quickstart: {first_step(folder):.1f} s from the command to the first step', flush=True)
    for program in PROGRAMS:
      times = [seconds(f'vit_jax.{program}', '--help') for _ in range(3)]
      print(f'{program} --help: {statistics.median(times):.2f} s', flush=True)
    scored, predicted = scoring(pathlib.Path(folder, '1'))
    print(f'evaluation: {scored:,.0f} images/s (28 pixels, 0.2 M parameters, data opened and compiled each time); '
          f'predict from Python: {predicted:,.0f} images/s', flush=True)
    law = [seconds('vit_jax.law', 'experiments/fashion_mnist_law/results/runs', '--form=chinchilla', '--bootstrap=1000')
           for _ in range(3)]
    print(f'law: {statistics.median(law):.1f} s for 72 runs and 1,000 refits', flush=True)


if __name__ == '__main__':
  main()
