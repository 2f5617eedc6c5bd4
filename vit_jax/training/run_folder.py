"""The folder of a run that is being trained: its log, its checkpoints, and where it resumes."""

import contextlib
import dataclasses
import os
import shlex
import time
from collections.abc import Callable
from typing import Any

import jax
from etils import epath

from vit_jax import checkpoint, durable, goodput, host, records, schema, tracking
from vit_jax.errors import UserError
from vit_jax.parallel import processes
from vit_jax.survival import fallback, local_tier, origin, restarts
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
  given = (_BY_WEIGHTS if config.pretrained.path else ()) + (('distill',) if config.distill.teacher else ())
  unknown = ('system', *given)
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
  if 'config_hash' not in there:
    raise UserError(f'{workdir}/{records.RUN}: no config_hash; was the file damaged? {records.way_on(workdir)}')
  ours = run.record()
  if there['config_hash'] not in (ours['config_hash'], _by_folder(run)):
    identity = lambda record: record.get('config', {}) | {'system': {'microbatches': _counted(run, record)}}
    keys = '; '.join(schema.differing_keys(identity(ours), identity(there)))
    raise UserError(f'{workdir} holds another run ({there.get("config_hash")}; this one is {ours["config_hash"]}). '
                    f'Here {keys}. Give another --workdir')
  origin.refuse_other(there, ours, os.fspath(workdir))
  results = there.get('results')
  return None if results and run.branch_steps and results['steps'] < run.steps else results


def _by_folder(run):
  """The identity of a run in older versions, which knew a teacher by its folder; `origin` compares its digest."""
  distill = dataclasses.replace(run.config.distill, digest=None)
  return dataclasses.replace(run, config=dataclasses.replace(run.config, distill=distill)).config_hash


def finished_words(run: Run, workdir: os.PathLike) -> str:
  """A sentence on a finished run: when, by which code, and that nothing was trained."""
  events = records.read_rows(epath.Path(workdir) / records.EVENTS)
  when = [event.get('time') for event in events if event.get('event') == 'finished']
  return origin.finished(records.read_run(workdir), run.code, when[-1] if when else None)


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
    self._there = there = records.read_run(workdir) or {}
    if run.branch_steps:  # keeps the checkpoints from which earlier branches start
      run = dataclasses.replace(run, branch_steps=tuple(sorted({*run.branch_steps, *there.get('branch_steps', ())})))
    self.run, self.path, self._trunk, self._note = run, epath.Path(workdir), trunk, note
    if run.config.system.deterministic and run.platform == 'gpu':
      self._keep_autotuning()
    self.metrics = records.Lines(self.path / records.METRICS) if processes.is_writer() else records.NoLines()
    self.events = records.Events(self.path / records.events_name(jax.process_index()))
    system = run.config.system
    self.checkpoints = checkpoint.Checkpoints(workdir, system.keep_last, run.branch_steps, system.keep_every,
                                              self._penalty)
    begins = processes.from_writer(lambda: not there)
    self.tier = local_tier.LocalTier(system, run.config_hash, workdir, run.mesh, run.log_every, begins, note)
    resumed = self.checkpoints.latest() is not None or self.tier.steps
    if resumed and there:
      origin.refuse_other(there, run.record(), os.fspath(workdir))
    self._kept: list[int] = []  # checkpoints of the trunk from which the run can start
    if resumed:
      self.lineage = there.get('lineage') if there else self._lost_lineage()
    else:
      self.lineage = self._find_lineage() if trunk else None
    self.left_out = sorted(set(run.config.train.leave_out))  # batches of the order, numbered from 1
    self.val_rows: list[dict] = []
    self.saved_step: int | None = None  # of the last checkpoint in the run folder; 0: none, but it is resumed locally
    self._codes: list[dict[str, Any]] = []  # which steps are done by which
    self._needed: int | None = None  # the step of the last checkpoint, if it must not be missing later
    shown = [name for name, metric in run.metrics.items() if metric.shown]
    self._tracking = tracking.Tracking(self.path, system.track, (*shown, 'learning_rate', 'grad_norm'), self.events,
                                       note) if processes.is_writer() else None
    self._finished = False

  def _keep_autotuning(self):
    if '://' in os.fspath(self.path):
      raise UserError(f'system.deterministic=True: XLA keeps its choice of algorithms in a folder, and {self.path} is '
                      'a bucket; give a --workdir on a disk')
    host.keep_autotuning(self.path / 'autotuning')

  def go_back(self, like: TrainState, batch: int) -> TrainState:
    """The state of the last save, or the initial one, for a run that leaves out one more batch; the log ends there."""
    self.left_out = sorted([*self.left_out, batch])
    self.checkpoints.wait()
    self.tier.forget_after(self.saved_step or 0)
    if not self.saved_step:
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
    newest = max(self.checkpoints.latest() or 0, *self.tier.steps, 0)
    processes.from_writer(lambda: restarts.check(records.read_events(self.path / records.EVENTS), newest))
    self.events.append({'event': restarts.BEGUN, 'step': newest})
    self.events.upload()  # restarts are counted even where every process is killed
    train_state = state.create(self.run.model, self.run.config, self.run.mesh)
    like = lambda record: _abstract(train_state, record)
    found = fallback.newest_good(self.checkpoints, like, self._fault, self._note_damage, self._without_log, self.tier)
    if found:
      event, (step, tree, record) = 'resume', found
      self.saved_step = self.checkpoints.latest() or 0
      if step != self.saved_step:
        self._note(f'step {step} is that of a local checkpoint (system.local_dir); the last in {self.path} is of step '
                   f'{self.saved_step}')
      train_state = state.from_plain(train_state, tree)
      self._there = self._there or {'codes': record.get('codes', ())}  # where run.json was lost
      self.metrics.rewind(0 if self._log_begins_after(step) else record['metrics_bytes'])
      self.left_out = record.get('left_out', self.left_out)
    else:
      train_state = self._begin(train_state)
      event = 'branch' if self.lineage else 'start'
    begins = int(train_state.step)
    clock.started()
    self.append_event(event, begins, clock, steps=self.run.steps)
    self._read_log(begins)
    return train_state

  def _begin(self, train_state):
    """The state before the first step of this folder, and an empty log."""
    self.metrics.rewind(0)
    if self.lineage and (left := self._leave_trunk(train_state)):
      return state.reset_metrics(left)
    return self.run.pretrained.fill(train_state) if self.run.pretrained else train_state

  def _read_log(self, step):
    """Reads the rows that the log has up to `step`, from where it goes on."""
    rows = processes.from_writer(lambda: records.read_rows(self.path / records.METRICS))
    self.val_rows = [row for row in rows if row['split'] == 'val']
    if self._tracking:
      self._tracking.follow(self.run.record(), rows, step)

  def codes(self, record: dict[str, Any], step: int) -> list[dict[str, Any]]:
    """Which steps are done by which code (`origin.codes`); a mixture is said."""
    branched = self.lineage and self.saved_step is None  # the steps before are the trunk's
    self._codes = origin.codes(records.read_run(self._trunk) if branched else self._there, record, step)
    if said := origin.mixed(self._codes):
      self._note(said)
    return self._codes

  def _find_lineage(self):
    """{'trunk': its hash, 'step': the last kept checkpoint up to the cooldown}; None if there is no such checkpoint."""
    try:
      self._kept = _kept_steps(self.run, self._trunk)
    except records.DamagedRun as damage:
      self._go_around(str(damage))
    return {'trunk': branch.trunk_hash(self.run.config), 'step': self._kept[-1]} if self._kept else None

  def _lost_lineage(self):
    """The lineage of a run that resumes without run.json, from its events."""
    events = records.read_events(self.path / records.EVENTS)
    began = next((event for event in reversed(events) if event['event'] in ('start', 'branch')), {})
    if began.get('event') == 'branch' and isinstance(began.get('step'), int):
      return {'trunk': branch.trunk_hash(self.run.config), 'step': began['step']}
    return None

  def _leave_trunk(self, like):
    """The state of the last kept checkpoint of the trunk that is good, and sets the lineage; None if none is."""
    with contextlib.closing(checkpoint.Checkpoints(self._trunk, read_only=True)) as trunk:
      for step in reversed(self._kept):
        try:
          found = _restore(trunk, step, like)
          self.left_out = trunk.record(step).get('left_out', self.left_out)
        except checkpoint.Damaged as damage:
          self._go_around(f'its checkpoint of step {step} cannot be used: {damage}')
          continue
        self.lineage = self.lineage | {'step': step}
        return found
    self.lineage = None
    return None

  def _go_around(self, why):
    """A branch is the run of its length: what a trunk cannot give, it trains itself, and ends the same."""
    why = f'--trunk={self._trunk}: {why}. The run trains this part itself'
    self.events.append({'event': records.AROUND, 'why': why})
    self._note(why)

  def _log_begins_after(self, step):
    """Whether metrics.jsonl was set aside at this step or later, as `_without_log` says."""
    aside = self.path.glob(records.SET_ASIDE.format('*'))
    numbers = [path.name.partition('-')[2].partition('.')[0] for path in aside]
    return any(number.isdecimal() and int(number) >= step for number in numbers)

  def _without_log(self, step):
    """How to go on from a checkpoint whose arrays are good, though the log before it is not."""
    log, aside = (os.fspath(self.path / name) for name in (records.METRICS, records.SET_ASIDE.format(step)))
    command = shlex.join(['mv', log, aside] if self.metrics.size else ['touch', aside])
    return (f'The arrays of step {step} are good, only the log is damaged. To go on from there with a log that begins '
            f'there: `{command}`, then the same command. Or put a copy of {records.METRICS} in its place')

  def _fault(self, step, record):
    """What a checkpoint needs and the folder lacks: lines of the log, or a checkpoint that a branch starts from.

    Lines are not needed where the log was set aside after the checkpoint.
    """
    if record.get('config_hash') not in (None, self.run.config_hash):  # run.json was taken away, and with it the proof
      return f'it is of another run ({record["config_hash"]}; this one is {self.run.config_hash})'
    needs = record.get('needs')
    if needs is not None and needs not in self.checkpoints.steps():
      return f'the checkpoint of step {needs} in {self.path} is needed and was not finished'
    if self._log_begins_after(step):
      return None
    return self.metrics.changed(record['metrics_bytes'], record.get('metrics_crc32'))

  def _note_damage(self, step, fault, moved_to):
    self.events.append({'event': 'damaged', 'step': step, 'why': fault, 'moved_to': moved_to})
    self._note(f'the checkpoint of step {step} cannot be used: {fault}. It was moved to {moved_to}' if moved_to else
               f'the local checkpoint of step {step} cannot be used: {fault}. It was deleted')

  def upload(self) -> None:
    """Makes the lines of all logs durable."""
    self.metrics.upload()
    self.events.upload()
    if self._tracking:
      self._tracking.flush()

  def write(self, record: dict[str, Any]) -> None:
    """Writes run.json, and a tokenizer that was learnt. Raises UserError if this process does not see what was written.
    """
    if (learnt := self.run.learnt_tokenizer) is not None:
      processes.from_writer(lambda: durable.write(self.path / records.TOKENIZER, learnt))
    processes.from_writer(lambda: records.write_run(self.path, record))
    self._finished = 'results' in record
    if not (self.path / records.RUN).exists():
      raise UserError(f'--workdir={self.path}: process {jax.process_index()} does not see what process 0 wrote there; '
                      'give a bucket path or a shared disk')

  def restore(self, step: int, like: TrainState) -> TrainState:
    """The state of the checkpoint of `step`, sharded like `like`."""
    return _restore(self.checkpoints, step, like)

  def log(self, row: dict[str, Any]) -> None:
    """Appends a row to metrics.jsonl, and sends it to what tracks the run."""
    self.metrics.append(row)
    if self._tracking:
      self._tracking.log(row)
    if row['split'] == 'val':
      self.val_rows.append(row)

  def evaluated(self, step: int) -> bool:
    """Whether the log has a validation row of this step."""
    return bool(self.val_rows) and self.val_rows[-1]['step'] == step

  def save(self, train_state: TrainState, step: int, local: bool = False) -> float:
    """Starts to save a checkpoint here or in the local tier, and returns how many seconds that blocked.

    The log up to here is made durable first. Its length and checksum are stored in the checkpoint.
    """
    start = time.perf_counter()
    self.upload()
    record = {'metrics_bytes': self.metrics.size, 'metrics_crc32': self.metrics.crc32,
              'config_hash': self.run.config_hash, 'codes': self._codes,
              **({'left_out': self.left_out} if self.left_out else {})}
    if local:
      self.tier.save(step, state.to_plain(train_state), record | {'needs': self._needed})
    else:
      self.checkpoints.save(step, state.to_plain(train_state), record)
      self.saved_step = step
      self._needed = step if self.run.saved_when.needed(step, self.evaluated(step)) else None
    return time.perf_counter() - start

  def append_event(self, event: str, step: int, clock: goodput.Clock, **fields: Any) -> None:
    """Records an event with the clock's readings, up to which the time of this process is accounted for."""
    self.events.append({'event': event, 'step': step, **fields, goodput.SO_FAR: clock.seconds()})

  def _penalty(self, step):
    """The penalty of the validation at a step; None if there was none."""
    rows = [row for row in self.val_rows if row['step'] == step]
    return evaluate.penalty(rows[-1], self.run.config.evaluate.metric, self.run.metrics) if rows else None

  def close(self) -> None:
    self.tier.close()
    self.checkpoints.close()
    self.metrics.close()
    if self._tracking:
      self._tracking.close(self._finished)
    self.events.close()


def _kept_steps(run, trunk):
  """The steps up to the cooldown of a run whose checkpoints the trunk keeps."""
  there, ours = records.read_run(trunk), branch.trunk_hash(run.config)
  if there is None or there.get('status') != 'trunk':
    raise UserError(f'--trunk={trunk}: no trunk there; to train one, run the same command with --workdir={trunk} and '
                    f'--branch_steps={branch.branch_step(run.config.schedule, run.steps)} instead of --trunk')
  if there.get('config_hash') != ours:
    record = run.record()['config']
    keys = [key for key in schema.differing_keys(record, there.get('config', {}))
            if not key.startswith(branch.NOT_SHARED)]
    raise UserError(f'--trunk={trunk} is the trunk of other runs ({there.get("config_hash")}; expected {ours}). '
                    f'Here {"; ".join(keys)}')
  origin.refuse_other(there, run.record(), f'--trunk={trunk}')
  last = branch.branch_step(run.config.schedule, run.steps)
  with contextlib.closing(checkpoint.Checkpoints(trunk, read_only=True)) as checkpoints:
    return [step for step in checkpoints.steps() if step in there.get('branch_steps', ()) and step <= last]


def _abstract(like, record):
  return state.saved_by(record, checkpoint.abstract(state.to_plain(like)))


def _restore(checkpoints, step, like):
  return state.from_plain(like, checkpoints.restore(step, _abstract(like, checkpoints.record(step))))
