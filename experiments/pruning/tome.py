"""Accuracy and time of a trained ViT with tokens merged: the curve of ToMe (Bolya et al. 2023, fig. 1).

  python experiments/pruning/tome.py runs/pruning/whole

Times are of a batch's forward pass, each in turn with the whole model's; medians. The second table is of random
weights, for the time alone: DeiT-S/16 at 224 x 224 pixels.
"""

import functools
import statistics
import sys
import time

import jax
import numpy as np

from vit_jax.cost import flops
from vit_jax.data import device_augment, pipeline
from vit_jax.models import PureModel, deit
from vit_jax.pruning import tome
from vit_jax.training import trained

PAIRS = 9


def forward(model, merged):
  return jax.jit(lambda params, images: tome.apply(model, params, device_augment.normalize(images), merged))


def work(model, merged):
  image = jax.ShapeDtypeStruct((1, *model.image_shape), 'float32')
  return flops.count(functools.partial(tome.apply, model, merged=merged), model.param_shapes(), image)


def seconds(run):
  start = time.perf_counter()
  jax.block_until_ready(run())
  return time.perf_counter() - start


def speed_up(whole, other, pairs=PAIRS):
  """The median over pairs of runs in turn of how many times faster the second is, and its median time."""
  whole(), other()
  times = [(seconds(whole), seconds(other)) for _ in range(pairs)]
  return statistics.median(a / b for a, b in times), statistics.median(b for _, b in times)


def accuracy(run, params, data, batch_size=500):
  right = 0
  for batch in data.eval_batches('test', batch_size):
    right += int(((np.asarray(run(params, batch['image'])).argmax(-1) == batch['label']) * batch['weight']).sum())
  return right / data.size('test')


def main(workdir):
  model = trained.load(workdir)
  data = pipeline.open_data(model.config.data)
  images = next(data.eval_batches('test', 256))['image']
  print(f'{workdir}, {data.name}, {data.size("test"):,} test images; batches of 256 on {jax.devices()[0].device_kind}')
  print('merged a layer   test accuracy   MFLOPs   images/s   times as fast')
  whole = forward(model.model, 0)
  for merged in (0, 2, 4, 6, 8, 12, 16):
    run = forward(model.model, merged)
    ratio, took = speed_up(*(functools.partial(f, model.params, images) for f in (whole, run)))
    print(f'{merged:14}   {accuracy(run, model.params, data):13.2%}   {work(model.model, merged) / 1e6:6.1f}   '
          f'{len(images) / took:8,.0f}   {ratio:13.2f}', flush=True)

  large = PureModel('deit', deit.Config(**deit.size('S/16')), (224, 224, 3), 1000)
  params, _ = jax.jit(large.init)(jax.random.key(0))
  images = np.random.default_rng(0).integers(0, 256, (8, 224, 224, 3), np.uint8)
  print('\nDeiT-S/16, 224 x 224 pixels, random weights, batches of 8')
  print('merged a layer   GFLOPs   images/s   times as fast')
  whole = forward(large, 0)
  for merged in (0, 8, 13, 16):
    run = forward(large, merged)
    ratio, took = speed_up(*(functools.partial(f, params, images) for f in (whole, run)), pairs=5)
    print(f'{merged:14}   {work(large, merged) / 1e9:6.2f}   {len(images) / took:8.1f}   {ratio:13.2f}', flush=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
