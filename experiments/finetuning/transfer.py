"""Does pre-training on eight classes help with ten, of which there are few pictures? On Fashion-MNIST.

  python experiments/finetuning/transfer.py --workdir=runs/finetuning

One ViT is pre-trained on classes 0 to 7 (none of the test pictures). Then, for each seed, 1,000 pictures
of all ten classes are learned: from these weights, and from scratch at each of several learning rates. Each run is as
long, and stops at its best validation (1,000 other pictures). From scratch, the rate that is best on validation counts.
"""

import gzip
import json
import pathlib
import struct
import sys

import numpy as np
from absl import app, flags, logging

_WORKDIR = flags.DEFINE_string('workdir', 'runs/finetuning', 'Where the runs go; finished ones are not repeated.')
_SEEDS = flags.DEFINE_integer('seeds', 5, 'How many seeds.', 2)
_PRETRAIN_STEPS = flags.DEFINE_integer('pretrain_steps', 2_000, 'Steps of 64 pictures of eight classes.')
_STEPS = flags.DEFINE_integer('steps', 400, 'Steps of 50 pictures of ten classes.')
_RATES = flags.DEFINE_list('scratch_rates', ['1e-3', '3e-3'], 'Learning rates from scratch.')
_RATE = 1e-3  # from the weights
_CLASSES = 8


def recipe():
  from vit_jax import config
  c = config.defaults('vit')
  c.model.patch_size, c.model.width, c.model.depth, c.model.mlp_dim, c.model.num_heads = 7, 64, 3, 128, 4
  c.model.pool = 'gap'
  c.data.augment.flip = True
  c.optimizer.weight_decay = 0.1
  c.system.execution.scan = False  # three small layers: unrolled is faster on a CPU
  return c


def write_idx(folder, classes):
  """The pictures of the first classes as a data set of its own; what it holds out is cut from its training pictures."""
  from vit_jax.data import sources
  from vit_jax.data.config import DataConfig
  train = sources.open_sources(DataConfig('fashion_mnist'))['train']
  keep = train.labels < classes
  images, labels = train.images[keep, ..., 0], train.labels[keep].astype(np.uint8)
  parts = {'train': slice(2_000, None), 't10k': slice(2_000)}
  folder.mkdir(parents=True, exist_ok=True)
  for name, part in parts.items():
    for kind, array in (('images-idx3', images[part]), ('labels-idx1', labels[part])):
      header = bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape)
      with gzip.open(folder / f'{name}-{kind}-ubyte.gz', 'wb', compresslevel=1) as file:
        file.write(header + array.tobytes())


def train(config, folder):
  """The results of a run, which is trained where it has not been."""
  from rich.console import Console

  from vit_jax.training import config as run_config
  from vit_jax.training import loop, run_folder
  from vit_jax.training import run as run_lib
  from vit_jax.training.display import Display
  run = run_lib.prepare(run_config.cast(config))
  return run_folder.finished_results(run, folder) or loop.train(run, folder, Display(Console(quiet=True)))


def pretrained(workdir):
  """The run that has seen eight classes."""
  data = workdir / f'fashion{_CLASSES}'
  if not data.exists():
    write_idx(data, _CLASSES)
  c = recipe()
  c.data.source, c.data.batch_size, c.data.val_examples = f'idx:{data}', 64, 1_000
  c.optimizer.learning_rate, c.schedule.warmup_steps, c.train.steps = 2e-3, 200, _PRETRAIN_STEPS.value
  c.evaluate.every = _PRETRAIN_STEPS.value
  folder = workdir / 'pretrained'
  results = train(c, folder)
  print(f'pre-trained on classes 0 to 7: {results["test"]["accuracy"]:.2%} of 2,000 held-out pictures of these',
        flush=True)
  return folder


def few(seed, rate, path=None):
  c = recipe()
  c.seed, c.data.source, c.data.batch_size = seed, 'fashion_mnist', 50
  c.data.unique_examples, c.data.val_examples = 1_000, 1_000
  c.optimizer.learning_rate, c.schedule.warmup_steps, c.train.steps = rate, 20, _STEPS.value
  c.evaluate.patience, c.evaluate.batch_size = 10, 500  # all of it, and then the best
  if path:
    c.pretrained.path = str(path)
  return c


def summary(tuned, scratch):
  """Means and the interval of the paired difference (Student's t over seeds)."""
  from scipy import stats
  difference = np.subtract(tuned, scratch)
  half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
  mean = difference.mean()
  return {'finetuned': float(np.mean(tuned)), 'scratch': float(np.mean(scratch)), 'margin': float(mean),
          'ci95': [float(mean - half), float(mean + half)], 'seeds': len(difference)}


def main(_):
  import jax

  from vit_jax import host
  host.hush_absent_tpu()
  logging.set_verbosity(logging.FATAL)
  workdir, seeds = pathlib.Path(_WORKDIR.value), range(_SEEDS.value)
  jax.config.update('jax_compilation_cache_dir', str(workdir / 'cache'))  # seeds share their programs
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
  path = pretrained(workdir)
  tuned = [train(few(seed, _RATE, path), workdir / f'tuned-{seed}')['test']['accuracy'] for seed in seeds]
  print(f'fine-tuned     {" ".join(f"{a:.2%}" for a in tuned)}', flush=True)
  scratch = {}
  for rate in map(float, _RATES.value):
    results = [train(few(seed, rate), workdir / f'scratch-{rate:g}-{seed}') for seed in seeds]
    scratch[rate] = np.mean([r['val']['accuracy'] for r in results]), [r['test']['accuracy'] for r in results]
    print(f'scratch {rate:<6g} {" ".join(f"{a:.2%}" for a in scratch[rate][1])}  (validation {scratch[rate][0]:.2%})',
          flush=True)
  best = max(scratch, key=lambda rate: scratch[rate][0])
  told = summary(tuned, scratch[best][1]) | {'scratch_rate': best, 'each': {'finetuned': tuned, 'scratch':
                                                                           scratch[best][1]}}
  low, high = told['ci95']
  print(f'test accuracy on ten classes from 1,000 pictures: fine-tuned {told["finetuned"]:.2%}, from scratch '
        f'{told["scratch"]:.2%}; margin {told["margin"]:.2%}, 95% interval {low:.2%} to {high:.2%} '
        f'({told["seeds"]} seeds)')
  (workdir / 'results.json').write_text(json.dumps(told, indent=2) + '\n')


if __name__ == '__main__':
  sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
  app.run(main)
