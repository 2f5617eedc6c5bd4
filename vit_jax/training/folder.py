"""A run's folder while it trains: its log, its checkpoints, and where a restart goes on."""

import os
import time
from typing import Any

from etils import epath

from vit_jax import checkpoint, records
from vit_jax import config as config_lib
from vit_jax.errors import UserError
from vit_jax.training import evaluate, state
from vit_jax.training.run import Run
from vit_jax.training.state import TrainState


def finished_results(run: Run, workdir: os.PathLike) -> dict[str, Any] | None:
  """The results of a run folder that has finished; None where there is something to do.

  Raises:
    UserError: the folder holds another run; the differing keys are named.
  """
  there = records.read_run(workdir)
  if there is None:
    return None
  ours = run.record()
  if there['config_hash'] != ours['config_hash']:
    identity = lambda record: {key: value for key, value in record['config'].items() if key != 'system'}
    keys = '; '.join(config_lib.differing_keys(identity(ours), identity(there)))
    raise UserError(f'{workdir} holds another run ({there["config_hash"]}; this one is {ours["config_hash"]}). '
                    f'Here {keys}. Give another --workdir')
  return there.get('results')


class RunFolder:
  """The open files of a run folder: metrics.jsonl, events.jsonl, checkpoints/ and tensorboard/."""

  def __init__(self, run: Run, workdir: os.PathLike):
    self.run, self.path = run, epath.Path(workdir)
    self.metrics = records.Lines(self.path / records.METRICS)
    self.events = records.Events(self.path / records.EVENTS)
    self.checkpoints = checkpoint.Checkpoints(workdir, run.config.system.keep_last)
    self.val_rows: list[dict] = []
    self.saved_step: int | None = None
    self._tensorboard = None

  def restore_or_create(self) -> TrainState:
    """The state of the newest checkpoint, with the log cut back to it; else the initial state."""
    run, step = self.run, self.checkpoints.latest()
    train_state = state.create(run.model, run.config.optimizer, run.config.seed, run.mesh)
    if step is None:
      self.metrics.rewind(0)
    else:
      train_state = self.restore(step, train_state)
      self.metrics.rewind(self.checkpoints.record(step)['metrics_bytes'])
    self.val_rows = [row for row in records.read_rows(self.path / records.METRICS) if row['split'] == 'val']
    self.saved_step = step
    self.events.append({'event': 'start' if step is None else 'resume', 'step': step or 0, 'steps': run.steps})
    from tensorboardX import SummaryWriter  # half a second, not needed before
    self._tensorboard = SummaryWriter(os.fspath(self.path / 'tensorboard'), purge_step=(step or 0) + 1)
    return train_state

  def restore(self, step: int, like: TrainState) -> TrainState:
    """The state of one checkpoint, placed as `like`."""
    return state.from_plain(like, self.checkpoints.restore(step, checkpoint.abstract(state.to_plain(like))))

  def log(self, row: dict[str, Any]) -> None:
    """Adds a row to metrics.jsonl and its scalars to TensorBoard."""
    self.metrics.append(row)
    for name in ('loss', 'accuracy', 'learning_rate', 'grad_norm'):
      if name in row:
        self._tensorboard.add_scalar(f'{row["split"]}/{name}', row[name], row['step'])
    if row['split'] == 'val':
      self.val_rows.append(row)

  def evaluated(self, step: int) -> bool:
    """Whether the log has the validation of this step."""
    return bool(self.val_rows) and self.val_rows[-1]['step'] == step

  def save(self, train_state: TrainState, step: int) -> None:
    """Starts a checkpoint; the log up to here is made durable first, and its length goes with the checkpoint."""
    self.metrics.upload()
    metric = evaluate.penalty(self.val_rows[-1], self.run.config.evaluate.metric) if self.evaluated(step) else None
    start = time.perf_counter()
    self.checkpoints.save(step, state.to_plain(train_state), {'metrics_bytes': self.metrics.size}, metric)
    self.events.append({'event': 'save', 'step': step, 'stalled_s': round(time.perf_counter() - start, 4)})
    self.saved_step = step

  def close(self) -> None:
    self.checkpoints.close()
    self.metrics.close()
    self.events.close()
    if self._tensorboard:
      self._tensorboard.close()
