"""Accuracy and time of a ViT, of the same with half of its heads and MLP units taken out, and of that fine-tuned.

  python experiments/pruning/table.py runs/pruning

Reads the folders whole, pruned and tuned that the README's commands leave there. Times are of the forward pass and of
the training step, the models in turn; medians.
"""

import contextlib
import json
import pathlib
import statistics
import sys
import time

import jax

from vit_jax import host
from vit_jax.cost import flops
from vit_jax.data import device_augment, pipeline
from vit_jax.training import evaluate, state, trained
from vit_jax.training.step import make_train_step

ROUNDS = 15


def scored(model, data):
  step = jax.jit(evaluate.make_eval_step(model.model, device_augment.normalize))
  with contextlib.closing(data.eval_batches('test', 500)) as batches:
    return evaluate.evaluate(step, model.params, model.stats, batches)['accuracy']


def calls(model, data):
  """(forward pass of 256 test images, training step), ready to be timed."""
  images = next(data.eval_batches('test', 256))['image']
  forward = jax.jit(lambda params: model.model.apply(params, model.stats, device_augment.normalize(images))[0])
  batch = {name: value for name, value in next(data.train_batches(0, 0, 1)).items() if name != 'errors'}
  step = jax.jit(make_train_step(model.model, model.config, 100, device_augment.augment(model.config.data.augment)))
  start = state.init(model.model, model.config, state.hparams(model.config.optimizer, 0))
  return lambda: forward(model.params), lambda: step(start, batch)


def main(folder):
  host.keep_freed_memory()
  folder = pathlib.Path(folder)
  models = {name: trained.load(folder / name) for name in ('whole', 'pruned', 'tuned')}
  data = pipeline.open_data(models['whole'].config.data)
  timed = {name: calls(models[name], data) for name in ('whole', 'tuned')}
  times = {}
  for turn in range(ROUNDS + 1):
    for name, kinds in timed.items():
      for kind, call in zip(('forward', 'training'), kinds, strict=True):
        begins = time.perf_counter()
        jax.block_until_ready(call())
        if turn:  # the first compiles
          times.setdefault((name, kind), []).append(time.perf_counter() - begins)
  ratio = lambda kind: statistics.median(a / b for a, b in zip(times['whole', kind], times['tuned', kind]))
  print('model     heads  mlp_dim  parameters   MFLOPs/image   test accuracy')
  for name, model in models.items():
    c = model.config.model
    print(f'{name:8}  {c.num_heads:5}  {c.mlp_dim:7}  {flops.params(model.model)[0]:10,}   '
          f'{flops.per_example(model.model)[0] / 1e6:12.1f}   {scored(model, data):13.2%}', flush=True)
  for kind, what in (('forward', '256 test images, forward'), ('training', 'a training step')):
    before, after = (1e3 * statistics.median(times[name, kind]) for name in ('whole', 'tuned'))
    print(f'{what}: {before:.1f} ms -> {after:.1f} ms, {ratio(kind):.2f} times as fast (median of {ROUNDS} pairs)')
  for name in ('whole', 'tuned'):
    record = json.loads((folder / name / 'run.json').read_text())
    print(f'{name}: {record["steps"]:,} steps; its own log says {record["results"]["test"]["accuracy"]:.2%}')


if __name__ == '__main__':
  main(*sys.argv[1:])
