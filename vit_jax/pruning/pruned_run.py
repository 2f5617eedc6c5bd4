"""The run folder of a pruned model: what is read, taught from and fine-tuned like any run's."""

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

STEP = 0  # of its checkpoint: nothing has been trained in this shape


def write(pruned: Trained, workdir: os.PathLike, source: os.PathLike, options: dict[str, Any]) -> dict[str, Any]:
  """Writes a pruned model as a run folder and returns its run.json.

  Its identity is that of a run of its shape *and* of how it was pruned from which run: `main` refuses to train on in
  this folder, which a run of that shape from random parameters would otherwise take for its own.

  Args:
    pruned: what `structured.prune` gave.
    workdir: a folder that holds no run.
    source: the run folder that it was pruned from.
    options: how, for the record.

  Raises:
    UserError: there is a run.
  """
  if records.read_run(workdir) is not None:
    raise UserError(f'--workdir={os.fspath(workdir)} holds a run; give another folder')
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
