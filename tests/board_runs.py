"""Run folders with curves that end at the loss of a law, for pages of many runs."""

import json
import zlib

import numpy as np

from vit_jax import records

EVIL = '</script><img src=x onerror=alert(1)>'
FACTOR = 0.5  # the FLOPs that the family swin needs for the loss of vit, in these runs


def loss_at(params, examples, family):
  scale = FACTOR ** 0.25 if family == 'swin' else 1.0  # of both terms: FLOPs to the power of a quarter
  return 0.2 + scale * (8 * params ** -0.5 + 40 * examples ** -0.5)


def write(root, name, config, params, steps, status='finished', done=1.0, rows=6, times=1.0):
  """A run folder with a curve that ends at `times` the loss of its law, or on the way there."""
  folder, random = root / name, np.random.default_rng(zlib.crc32(name.encode()))
  folder.mkdir(parents=True, exist_ok=True)
  config = {'family': 'vit', 'seed': 0, 'data': {'batch_size': 10}, 'model': {'width': 8}, 'system': {'mesh': name},
            **config}
  at = np.linspace(steps / rows, steps, rows)[:max(1, round(done * rows))].astype(int)
  loss = [float(times * loss_at(params, 10 * step, config['family']) * np.exp(0.001 * random.standard_normal()))
          for step in at]
  lines = [{'split': split, 'step': int(step), 'examples': 10 * int(step), 'flops': 60 * params * int(step),
            'loss': value} for step, value in zip(at, loss) for split in ('train', 'val')]
  (folder / records.METRICS).write_text(''.join(json.dumps(line) + '\n' for line in lines))
  results = {'step': int(at[-1]), 'steps': steps, 'val': {'loss': loss[-1]}} if status == 'finished' else None
  records.write_run(folder, {'config': config, 'config_hash': name, 'status': status, 'params': params,
                             'steps': steps, 'results': results})
  return folder


def grid(root):
  """Two families, one run that stopped half-way, and one that failed."""
  for family in ('vit', 'swin'):
    for params in (1000, 2000, 4000, 8000):
      for steps in (100, 200, 400, 800):
        write(root, f'{family}-{params}-{steps}', {'family': family}, params, steps)
  write(root, 'vit-long', {'seed': 1}, 8000, 1600, status='running', done=0.5)
  failed = write(root, 'vit-failed', {'seed': 2}, 8000, 1600, status='running', done=0.2)
  (failed / records.EVENTS).write_text(json.dumps({'event': 'failed', 'why': 'exit code 1', 'said': EVIL}) + '\n')
