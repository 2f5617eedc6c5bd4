"""The folder of a run that is being trained: its log, its checkpoints, and where it resumes."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from vit_jax import checkpoint, goodput, records, schema
from vit_jax.errors import UserError
from vit_jax.parallel import processes
from vit_jax.survival import fallback, restarts
from vit_jax.survival import workdir as workdir_lib
from vit_jax.training import branch, evaluate, state
from vit_jax.training import config as run_config
from vit_jax.training.config import RunConfig
from vit_jax.training.run import Run
from vit_jax.training.state import TrainState

_BY_WEIGHTS = ('family', 'model', 'data', 'pretrained')  # what weights decide of the config that starts from them


def check(config: RunConfig, workdir: os.PathLike) -> None:
  """Looks at the folder of a run before data are opened and weights are read; `finished_results` looks again after.

  Raises:
    UserError: the folder cannot be written, or holds a run that differs in what is known by now.
  """
  workdir_lib.check(workdir)
  there = records.read_run(workdir)
  if there is None or there.get('status') == 'trunk' or 'config' not in there:
    return
  try:
    theirs = run_config.cast(there['config'])
  except UserError:  # of another version: the hashes will tell
    return
  unknown = ('system', *(_BY_WEIGHTS if config.pretrained.path else ()))
  known = lambda fields: {key: value for key, value in fields.items() if key not in unknown}
  if known(schema.changed(config)) != known(schema.changed(theirs)):
    keys = '; '.join(schema.differing_keys(known(schema.plain(config)), known(schema.plain(theirs))))
    raise UserError(f'{workdir} holds another run ({there.get("config_hash")}). Here {keys}. Give another --workdir')


def finished_results(run: Run, workdir: os.PathLike) -> dict[str, Any] | None:
  """The results of a finished run folder; None if something is left to do, such as for a trunk that is extended.

  Raises:
    UserError: the folder holds another run; the message names the keys that differ.
  """
  there = records.read_run(workdir)
  if there is None:
    return None
  ours = run.record()
  if there.get('config_hash') != ours['config_hash']:
    identity = lambda record: record.get('config', {}) | {'system': {'microbatches': _counted(run, record)}}
    keys = '; '.join(schema.differing_keys(identity(ours), identity(there)))
    raise UserError(f'{workdir} holds another run ({there.get("config_hash")}; this one is {ours["config_hash"]}). '
                    f'Here {keys}. Give another --workdir')
  results = there.get('results')
  return None if results and run.branch_steps and results['steps'] < run.steps else results


def _counted(run, record):
  """The micro-batches of a record's run if they are part of its identity, else None."""
  return record.get('config', {}).get('system', {}).get('microbatches') if run.model.stats_shapes() else None


class RunFolder:
  """The open files of a run folder: metrics.jsonl, events.jsonl, checkpoints/ and tensorboard/.

  Only one of several processes writes them, except that each has its own event file and saves its part of a checkpoint.
  """

  def __init__(self, run: Run, workdir: os.PathLike, trunk: os.PathLike | None = None,
               note: Callable[[str], None] = print):
    """Opens the folder of a run.

    Args:
      run: the run.
      workdir: its folder.
      trunk: the folder of a trunk, from whose checkpoint at the branch step the run starts; None: it starts at step 0.
      note: prints a line.

    Raises:
      UserError: there is no trunk, or it belongs to another run.
    """
    there = records.read_run(workdir) or {}
    if run.branch_steps:  # keeps the checkpoints from which earlier branches start
      run = dataclasses.replace(run, branch_steps=tuple(sorted({*run.branch_steps, *there.get('branch_steps', ())})))
    self.run, self.path, self._trunk, self._note = run, epath.Path(workdir), trunk, note
    self.metrics = records.Lines(self.path / records.METRICS) if processes.is_writer() else records.NoLines()
    self.events = records.Events(self.path / records.events_name(jax.process_index()))
    system = run.config.system
    self.checkpoints = checkpoint.Checkpoints(workdir, system.keep_last, run.branch_steps, system.keep_every,
                                              self._penalty)
    resumed = self.checkpoints.latest() is not None
    self.lineage = there.get('lineage') if resumed else _lineage(run, trunk) if trunk else None
    self.left_out = sorted(set(run.config.train.leave_out))  # batches of the order, numbered from 1
    self.val_rows: list[dict] = []
    self.saved_step: int | None = None
    self._tensorboard = None

  def go_back(self, like: TrainState, batch: int) -> TrainState:
    """The state of the last save, or the initial one, for a run that leaves out one more batch; the log ends there."""
    self.left_out = sorted([*self.left_out, batch])
    self.checkpoints.wait()
    if self.saved_step is None:
      train_state = self._begin(state.create(self.run.model, self.run.config, self.run.mesh))
    else:
      record = self.checkpoints.record(self.saved_step)
      train_state = self.restore(self.saved_step, like)
      self.metrics.rewind(record['metrics_bytes'])
    self._read_log(int(train_state.step))
    return train_state

  def restore_or_create(self, clock: goodput.Clock) -> TrainState:
    """The state of the newest good checkpoint, with the log truncated to it; else the trunk's, or the initial state.

    Raises:
      UserError: three restarts made no newer checkpoint, or none of several checkpoints can be used.
    """
    newest = self.checkpoints.latest() or 0
    processes.from_writer(lambda: restarts.check(records.read_rows(self.path / records.EVENTS), newest))
    self.events.append({'event': restarts.BEGUN, 'step': newest})
    train_state = state.create(self.run.model, self.run.config, self.run.mesh)
    log_fault = lambda record: self.metrics.changed(record['metrics_bytes'], record.get('metrics_crc32'))
    like = lambda record: _abstract(train_state, record)
    found = fallback.newest_good(self.checkpoints, like, log_fault, self._note_damage)
    if found:
      event, (self.saved_step, tree, record) = 'resume', found
      train_state = state.from_plain(train_state, tree)
      self.metrics.rewind(record['metrics_bytes'])
      self.left_out = record.get('left_out', self.left_out)
    else:
      event, train_state = 'branch' if self.lineage else 'start', self._begin(train_state)
    begins = int(train_state.step)
    clock.started()
    self.append_event(event, begins, clock, steps=self.run.steps)
    self._read_log(begins)
    return train_state

  def _begin(self, train_state):
    """The state before the first step of this folder, and an empty log."""
    self.metrics.rewind(0)
    if self.lineage:
      return state.reset_metrics(self._leave_trunk(train_state))
    return self.run.pretrained.fill(train_state) if self.run.pretrained else train_state

  def _read_log(self, step):
    """Reads the rows that the log has up to `step`, from where it goes on."""
    rows = processes.from_writer(lambda: records.read_rows(self.path / records.METRICS))
    self.val_rows = [row for row in rows if row['split'] == 'val']
    if processes.is_writer():
      from tensorboardX import SummaryWriter  # takes half a second, so imported late
      if self._tensorboard:
        self._tensorboard.close()
      self._tensorboard = SummaryWriter(os.fspath(self.path / 'tensorboard'), purge_step=step + 1)

  def _leave_trunk(self, like):
    step = self.lineage['step']
    with contextlib.closing(checkpoint.Checkpoints(self._trunk, read_only=True)) as trunk:
      try:
        self.left_out = trunk.record(step).get('left_out', self.left_out)
        return _restore(trunk, step, like)
      except checkpoint.Damaged as damage:
        raise UserError(f'--trunk={self._trunk}: its checkpoint of step {step}, from which this run starts, cannot be '
                        f'used: {damage}. Without --trunk the run trains this part itself') from damage

  def _note_damage(self, step, fault, moved_to):
    self.events.append({'event': 'damaged', 'step': step, 'why': fault, 'moved_to': moved_to})
    self._note(f'the checkpoint of step {step} cannot be used: {fault}. It was moved to {moved_to}')

  def write(self, record: dict[str, Any]) -> None:
    """Writes run.json. Raises UserError if this process does not see what the writer wrote."""
    processes.from_writer(lambda: records.write_run(self.path, record))
    if not (self.path / records.RUN).exists():
      raise UserError(f'--workdir={self.path}: process {jax.process_index()} does not see what process 0 wrote there; '
                      'give a bucket path or a shared disk')

  def restore(self, step: int, like: TrainState) -> TrainState:
    """The state of the checkpoint of `step`, sharded like `like`."""
    return _restore(self.checkpoints, step, like)

  def log(self, row: dict[str, Any]) -> None:
    """Appends a row to metrics.jsonl and its scalars to TensorBoard."""
    self.metrics.append(row)
    scalars = row if self._tensorboard else {}
    for name in ('loss', 'accuracy', 'learning_rate', 'grad_norm'):
      if name in scalars:
        self._tensorboard.add_scalar(f'{row["split"]}/{name}', row[name], row['step'])
    if row['split'] == 'val':
      self.val_rows.append(row)

  def evaluated(self, step: int) -> bool:
    """Whether the log has a validation row of this step."""
    return bool(self.val_rows) and self.val_rows[-1]['step'] == step

  def save(self, train_state: TrainState, step: int) -> float:
    """Starts to save a checkpoint, and returns how many seconds that blocked.

    The log up to here is made durable first. Its length and checksum are stored in the checkpoint.
    """
    start = time.perf_counter()
    self.metrics.upload()
    record = {'metrics_bytes': self.metrics.size, 'metrics_crc32': self.metrics.crc32}
    record |= {'left_out': self.left_out} if self.left_out else {}
    self.checkpoints.save(step, state.to_plain(train_state), record)
    self.saved_step = step
    return time.perf_counter() - start

  def append_event(self, event: str, step: int, clock: goodput.Clock, **fields: Any) -> None:
    """Records an event with the clock's readings, up to which the time of this process is accounted for."""
    self.events.append({'event': event, 'step': step, **fields, goodput.SO_FAR: clock.seconds()})

  def _penalty(self, step):
    """The penalty of the validation at a step; None if there was none."""
    rows = [row for row in self.val_rows if row['step'] == step]
    return evaluate.penalty(rows[-1], self.run.config.evaluate.metric) if rows else None

  def close(self) -> None:
    self.checkpoints.close()
    self.metrics.close()
    self.events.close()
    if self._tensorboard:
      self._tensorboard.close()


def _lineage(run, trunk):
  """{'trunk': its hash, 'step': the last kept checkpoint up to the cooldown}; None if there is no such checkpoint."""
  there, ours = records.read_run(trunk), branch.trunk_hash(run.config)
  if there is None or there.get('status') != 'trunk':
    raise UserError(f'--trunk={trunk}: no trunk there; to train one, run the same command with --workdir={trunk} and '
                    f'--branch_steps={branch.branch_step(run.config.schedule, run.steps)} instead of --trunk')
  if there['config_hash'] != ours:
    record = run.record()['config']
    keys = [key for key in schema.differing_keys(record, there['config'])
            if not key.startswith(branch.NOT_SHARED)]
    raise UserError(f'--trunk={trunk} is the trunk of other runs ({there["config_hash"]}; expected {ours}). '
                    f'Here {"; ".join(keys)}')
  last = branch.branch_step(run.config.schedule, run.steps)
  with contextlib.closing(checkpoint.Checkpoints(trunk, read_only=True)) as checkpoints:
    steps = [step for step in checkpoints.steps() if step in there['branch_steps'] and step <= last]
  return {'trunk': ours, 'step': steps[-1]} if steps else None


def _abstract(like, record):
  return state.saved_by(record, checkpoint.abstract(state.to_plain(like)))


def _restore(checkpoints, step, like):
  return state.from_plain(like, checkpoints.restore(step, _abstract(like, checkpoints.record(step))))
