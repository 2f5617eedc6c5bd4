"""A run's folder while it trains: its log, its checkpoints, and where a restart goes on."""

import contextlib
import dataclasses
import os
import time
from typing import Any

import jax
from etils import epath

from vit_jax import checkpoint, records
from vit_jax import config as config_lib
from vit_jax.errors import UserError
from vit_jax.parallel import processes
from vit_jax.training import branch, evaluate, state
from vit_jax.training.run import Run
from vit_jax.training.state import TrainState


def finished_results(run: Run, workdir: os.PathLike) -> dict[str, Any] | None:
  """The results of a run folder that has finished; None where there is something to do, as for a trunk that grows.

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
  results = there.get('results')
  return None if results and run.branch_steps and results['steps'] < run.steps else results


class RunFolder:
  """The open files of a run folder: metrics.jsonl, events.jsonl, checkpoints/ and tensorboard/.

  Of many processes one writes them, but each has an event file of its own, and all save their part of a checkpoint.
  """

  def __init__(self, run: Run, workdir: os.PathLike, trunk: os.PathLike | None = None):
    """Opens the folder of a run, which starts from the checkpoint where it leaves `trunk` (a folder).

    Raises:
      UserError: the trunk is that of another run, or there is none.
    """
    there = records.read_run(workdir) or {}
    if run.branch_steps:  # earlier branches may still begin where they did
      run = dataclasses.replace(run, branch_steps=tuple(sorted({*run.branch_steps, *there.get('branch_steps', ())})))
    self.run, self.path, self._trunk = run, epath.Path(workdir), trunk
    self.metrics = records.Lines(self.path / records.METRICS) if processes.is_writer() else records.NoLines()
    self.events = records.Events(self.path / records.events_name(jax.process_index()))
    self.checkpoints = checkpoint.Checkpoints(workdir, run.config.system.keep_last, pinned=run.branch_steps)
    resumed = self.checkpoints.latest() is not None
    self.lineage = there.get('lineage') if resumed else _lineage(run, trunk) if trunk else None
    self.val_rows: list[dict] = []
    self.saved_step: int | None = None
    self._tensorboard = None

  def restore_or_create(self) -> TrainState:
    """The state of the newest checkpoint, with the log cut back to it; else the trunk's, or the initial state."""
    run, step, event = self.run, self.checkpoints.latest(), 'resume'
    train_state = state.create(run.model, run.config, run.mesh)
    if step is not None:
      train_state = self.restore(step, train_state)
      self.metrics.rewind(self.checkpoints.record(step)['metrics_bytes'])
    else:
      event = 'branch' if self.lineage else 'start'
      self.metrics.rewind(0)
      if self.lineage:
        with contextlib.closing(checkpoint.Checkpoints(self._trunk, read_only=True)) as trunk:
          train_state = _restore(trunk, self.lineage['step'], train_state)
        train_state = state.reset_metrics(train_state)
    rows = processes.from_writer(lambda: records.read_rows(self.path / records.METRICS))
    self.val_rows = [row for row in rows if row['split'] == 'val']
    self.saved_step = step
    begins = int(train_state.step)
    self.events.append({'event': event, 'step': begins, 'steps': run.steps})
    if processes.is_writer():
      from tensorboardX import SummaryWriter  # half a second, not needed before
      self._tensorboard = SummaryWriter(os.fspath(self.path / 'tensorboard'), purge_step=begins + 1)
    return train_state

  def write(self, record: dict[str, Any]) -> None:
    """Writes run.json. Raises a UserError where this process does not see what the writer wrote."""
    processes.from_writer(lambda: records.write_run(self.path, record))
    if not (self.path / records.RUN).exists():
      raise UserError(f'--workdir={self.path}: process {jax.process_index()} does not see what process 0 wrote there; '
                      'give a bucket path or a disk that all share')

  def restore(self, step: int, like: TrainState) -> TrainState:
    """The state of one checkpoint, placed as `like`."""
    return _restore(self.checkpoints, step, like)

  def log(self, row: dict[str, Any]) -> None:
    """Adds a row to metrics.jsonl and its scalars to TensorBoard."""
    self.metrics.append(row)
    scalars = row if self._tensorboard else {}
    for name in ('loss', 'accuracy', 'learning_rate', 'grad_norm'):
      if name in scalars:
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


def _lineage(run, trunk):
  """{'trunk': its identity, 'step': the last kept checkpoint before the cooldown}; None where there is none yet."""
  there, ours = records.read_run(trunk), branch.trunk_hash(run.config)
  if there is None or there['status'] != 'trunk':
    raise UserError(f'--trunk={trunk}: no trunk there; the same command with --workdir={trunk} and --branch_steps='
                    f'{branch.branch_step(run.config.schedule, run.steps)} in place of --trunk trains one')
  if there['config_hash'] != ours:
    record = run.record()['config']
    keys = [key for key in config_lib.differing_keys(record, there['config'])
            if not key.startswith((*(f'{part}.' for part in branch.NOT_SHARED), 'schedule.cooldown_fraction'))]
    raise UserError(f'--trunk={trunk} is the trunk of other runs ({there["config_hash"]}; this one\'s is {ours}). '
                    f'Here {"; ".join(keys)}')
  last = branch.branch_step(run.config.schedule, run.steps)
  with contextlib.closing(checkpoint.Checkpoints(trunk, read_only=True)) as checkpoints:
    steps = [step for step in checkpoints.steps() if step in there['branch_steps'] and step <= last]
  return {'trunk': ours, 'step': steps[-1]} if steps else None


def _restore(checkpoints, step, like):
  return state.from_plain(like, checkpoints.restore(step, checkpoint.abstract(state.to_plain(like))))
