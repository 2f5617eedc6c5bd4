"""Runs on frozen features: nearest neighbours and a linear probe, on features that are computed once and cached.

Pictures are not augmented and the model is not trained, so one pass over the pictures is enough. The rest takes seconds
to minutes (`transfer.probe`). The result is a model: the backbone with the probe as its head.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath

from vit_jax import durable, schema
from vit_jax.data import device_augment
from vit_jax.data.preprocessing import Preprocessing
from vit_jax.errors import UserError
from vit_jax.interop import bundle
from vit_jax.interop.weights import Weights
from vit_jax.objectives import calibration
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import calibrating, state
from vit_jax.training import run as run_lib
from vit_jax.training.run import Run
from vit_jax.transfer.probe import Features, linear, neighbours


def wanted(run: Run) -> bool:
  """Whether a run stops at frozen features."""
  probe = run.config.pretrained.probe
  return probe == 'always' or probe == 'on_cpu' and jax.devices()[0].platform == 'cpu'


def run_probe(run: Run, workdir: str | os.PathLike, note: Callable[[str], None]) -> dict[str, Any]:
  """Computes features of a run's pretrained model, and fits k-NN and a linear probe to them.

  probe.json and a bundle are written into `workdir`/probe.

  Returns:
    A dict with the entries
      knn, linear: accuracies on `test`.
      confidence: the linear probe's mean probability of the classes that it predicts rightly there; None without any.
      calibration: what `calibrating.of_logits` found; absent where there is no temperature.
      strength: the inverse penalty of the linear probe.
      val: the linear probe's accuracy on `val`.
      examples: {split: the number of examples}.
      bundle: the folder of the bundle.

  Raises:
    UserError: there are several processes, `workdir` is in a bucket, or a picture cannot be read and data.on_error is
      'stop'.
  """
  if run.data.several_labels:
    raise UserError(f'pretrained.probe={run.config.pretrained.probe}: a linear probe learns one class for each '
                    'picture, and these have several labels; set it to never')
  if '://' in os.fspath(workdir):
    raise UserError(f'--workdir={os.fspath(workdir)}: frozen features need a folder on a local disk')
  if jax.process_count() > 1:
    raise UserError('pretrained.probe: frozen features are computed by one process; set pretrained.probe=never')
  params, stats = _start(run)
  cache = epath.Path(workdir).parent / 'features' / _identity(run)
  splits = {}
  for split in ('train', 'val', 'test'):
    if run.data.size(split):
      splits[split] = features(run, split, params, stats, cache, note)
  train, val, test = splits['train'], splits.get('val'), splits['test']
  knn = float((neighbours(train, test.features, run.data.num_classes) == test.labels).mean())
  kernel, bias, strength, val_accuracy = linear(train, val, run.data.num_classes)
  accuracy = float(((test.features @ kernel + bias).argmax(1) == test.labels).mean())
  logits = lambda found: (found.features @ kernel + bias, found.labels)
  calibrated = calibrating.of_logits(logits(val), logits(test)) if calibrating.wanted(run) else {}
  fitted = calibrated.get('temperature', 1.0)
  confidence = calibration.gauge(*logits(test), fitted)['confidence']
  more = {'calibration': calibrated} if calibrated else {}
  folder = bundle_of(workdir)
  measured = {'test': {'accuracy': accuracy}, 'test_examples': len(test.labels), 'val': {'accuracy': val_accuracy},
              'probe': {'strength': strength}, **more}
  weights = dataclasses.replace(_weights(run, params, stats, kernel, bias), temperature=fitted)
  bundle.write(weights, folder, run.record() | {'results': measured})
  results = {'knn': knn, 'linear': accuracy, 'confidence': confidence, 'strength': strength, 'val': val_accuracy,
             'examples': {split: len(found.labels) for split, found in splits.items()}, 'bundle': os.fspath(folder),
             **more}
  record = {'config': schema.plain(run.config), 'config_hash': run.config_hash, 'results': results}
  durable.write(epath.Path(workdir) / 'probe' / 'probe.json', json.dumps(record, indent=2) + '\n')
  return results


def bundle_of(workdir: str | os.PathLike) -> epath.Path:
  """Where the bundle of a run that stops at frozen features is."""
  return epath.Path(workdir) / 'probe' / 'bundle'


def estimate_seconds(run: Run) -> float:
  """A rough estimate of the time to compute the features; see `run.estimate_seconds`."""
  images = sum(run.data.size(split) for split in ('train', 'val', 'test'))
  whole = run.position(run.steps)['flops']
  return run_lib.estimate_seconds(run) * images * run.flops_per_example_forward / whole


def features(run: Run, split: str, params: dict, stats: dict, cache: str | os.PathLike,
             note: Callable[[str], None] = print) -> Features:
  """The inputs of the model's head on a split, with pictures prepared as in evaluation; from the cache if present."""
  path = epath.Path(cache) / f'{split}.npz'
  if path.exists():
    with path.open('rb') as file, np.load(file) as cached:
      note(f'{split}: features of {len(cached["labels"]):,} images from {os.fspath(path)}')
      return Features(cached['features'], cached['labels'])
  normalize = device_augment.normalizer(run.config.data)

  def forward(params, stats, images):
    return run.model.apply(params, stats, normalize(images))[1]['pre_logits'].astype('float32')

  forward = jax.jit(mesh_lib.traced_on(run.mesh, forward), out_shardings=mesh_lib.sharding(run.mesh))
  report = lambda errors: [note(f'left out: {error}') for error in errors]
  with contextlib.closing(run.eval_batches(split, report)) as batches:
    rows = [jax.device_get((forward(params, stats, batch['image']), batch['label'], batch['weight']))
            for batch in batches]
  features_ND, labels, weights = (np.concatenate(parts) for parts in zip(*rows))
  found = Features(features_ND[weights > 0], labels[weights > 0])
  if not len(found.labels):
    raise UserError(f'{split}: none of its {run.data.size(split):,} pictures could be read')
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('wb') as file:
    np.savez(file, features=found.features, labels=found.labels)
  note(f'{split}: features of {len(found.labels):,} images, cached in {os.fspath(path)}')
  return found


def _start(run):
  """The parameters and statistics from which a training run would start."""
  train_state = run.pretrained.fill(state.create(run.model, run.config, run.mesh))
  return train_state.params, train_state.stats


def _identity(run):
  """A hash of what features depend on: the weights, the model, the pictures and how they are prepared."""
  data, config = run.data, run.config
  fields = {'weights': config.pretrained.digest, 'ignore': config.pretrained.ignore,
            'model': schema.plain(config.model), 'shape': data.image_shape, 'mean': config.data.mean,
            'std': config.data.std, 'interpolation': config.data.interpolation,
            'crop': config.data.augment.eval_crop, 'pictures': [data.fingerprint(s) for s in ('train', 'val', 'test')]}
  return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]


def _weights(run, params, stats, kernel, bias):
  """The pretrained model with the probe as its head."""
  params, stats = jax.device_get((params, stats))
  params = params | {'head': {'kernel': kernel, 'bias': bias}}
  if 'distillation_head' in params:  # the logits are the mean of two heads, and the probe is for CLS alone
    params['head'] = {'kernel': 2 * kernel, 'bias': 2 * bias}
    params['distillation_head'] = jax.tree.map(np.zeros_like, params['distillation_head'])
  data = run.config.data
  preprocessing = Preprocessing(run.data.image_shape[:2], run.data.image_shape[2], data.mean, data.std,
                                data.interpolation, data.augment.eval_crop)
  return Weights(run.pretrained.source, run.config.family, schema.plain(run.config.model), params, stats,
                 preprocessing, run.data.class_names)
