"""The run folder of a pruned model, which can be evaluated, fine-tuned or used as a teacher like any other."""

import contextlib
import os
from typing import Any

from vit_jax import checkpoint, records, schema
from vit_jax.cost import flops
from vit_jax.errors import UserError
from vit_jax.optimisation import trainable
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import state
from vit_jax.training.trained import Trained

STEP = 0  # of the checkpoint: the pruned model has not been trained


def write(pruned: Trained, workdir: os.PathLike, source: os.PathLike, options: dict[str, Any]) -> dict[str, Any]:
  """Writes a pruned model as a run folder and returns the content of its run.json.

  The config hash covers the source run and the pruning options as well as the config. So `main` refuses to train in
  this folder: a run of the same shape from random parameters has another hash.

  Args:
    pruned: the result of `structured.prune`.
    workdir: a folder that holds no run.
    source: the run folder of the model that was pruned.
    options: how it was pruned, recorded in the lineage.

  Raises:
    UserError: `workdir` holds a run.
  """
  if records.read_run(workdir) is not None:
    raise UserError(f'--workdir={os.fspath(workdir)} already holds a run; give another folder')
  record, config, model = records.read_run(source), pruned.config, pruned.model
  lineage = {'pruned_from': record['config_hash'], 'step': pruned.step, **options}
  mesh = mesh_lib.single_device()
  like = state.create(model, config, mesh)
  whole = like._replace(params=pruned.params, stats=pruned.stats, ema=pruned.params if like.ema else {})
  with contextlib.closing(checkpoint.Checkpoints(workdir)) as checkpoints:
    checkpoints.save(STEP, state.to_plain(whole), {'metrics_bytes': 0})
  params, params_non_embedding = flops.params(model)
  forward, train = flops.per_example(model, trainable.freezer(config.optimizer, model))
  record |= {'config': schema.plain(config), 'config_hash': schema.config_hash(config, more=lineage),
             'params': params, 'params_non_embedding': params_non_embedding, 'flops_per_example_forward': forward,
             'flops_per_example_train': train, 'lineage': lineage, 'status': 'pruned', 'results': {'step': STEP}}
  records.write_run(workdir, record)
  return record
