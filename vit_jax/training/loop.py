"""The training loop: train, log, evaluate, save, and resume a run that was stopped."""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from vit_jax import goodput
from vit_jax.checkpoint import Damaged
from vit_jax.data import device_augment, order
from vit_jax.errors import UserError
from vit_jax.optimisation import schedule
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.parallel import processes
from vit_jax.survival import full_disk, health, lock, sound, stop_file
from vit_jax.survival.beacon import Beacon
from vit_jax.survival.profiler import Profiler
from vit_jax.survival.saving import Saving
from vit_jax.survival.stop import Stop, Stopped
from vit_jax.training import calibrating, dispatch, evaluate, in_flight, probing, replay, state
from vit_jax.training.display import Display
from vit_jax.training.in_flight import InFlight
from vit_jax.training.program import Program
from vit_jax.training.run import Run
from vit_jax.training.run_folder import RunFolder
from vit_jax.training.state import TrainState


def train(run: Run, workdir: os.PathLike, display: Display, profile: bool = False,
          trunk: os.PathLike | None = None, clock: goodput.Clock | None = None) -> dict[str, Any]:
  """Trains a run in `workdir` to its end, resuming it if it was stopped, and returns its results.

  metrics.jsonl and the final parameters are byte-equal to those of an uninterrupted run on the same devices.

  Args:
    run: the run.
    workdir: its folder.
    display: shows the progress.
    profile: whether to write a profiler trace of a few steps.
    trunk: the folder of a trunk (`branch`). The run starts at its branch step, and its log begins there.
    clock: a clock that was started with the process, so that the start of the process counts.

  Raises:
    Stopped: the run was asked to stop and has saved; the same call resumes it.
    UserError: the loss or the gradient is not finite, a picture cannot be read and data.on_error is 'stop', the trunk
      belongs to another run, the disk is full, another process trains in the folder, or restarts make no progress.
  """
  clock = clock or goodput.Clock()
  checkpoint_size = lambda: state.size(run.model, run.config, run.mesh)
  with full_disk.explained(workdir, checkpoint_size), contextlib.ExitStack() as stack:
    stop = stack.enter_context(Stop())
    loop, train_state = begin(stack, run, workdir, display, stop, clock, trunk)
    return loop.finish(loop.to_end(train_state, profile))


def begin(stack: contextlib.ExitStack, run: Run, workdir: os.PathLike, display: Display, stop: Stop,
          clock: goodput.Clock, trunk: os.PathLike | None = None) -> tuple['Loop', TrainState]:
  """Opens the folder of a run until `stack` is closed; returns its loop and the state from which it continues."""
  processes.from_writer(lambda: stop_file.refuse(workdir))
  if processes.is_writer():
    stack.enter_context(lock.hold(workdir))
  folder = stack.enter_context(contextlib.closing(RunFolder(run, workdir, trunk, display.note)))
  # One process looks for a request to stop; with several, JAX makes all of them agree on a step.
  ask = stop.ask if processes.is_writer() else None
  beacon = stack.enter_context(contextlib.closing(Beacon(workdir, (folder.metrics, folder.events), ask)))
  stack.enter_context(_recorded(folder, stop, clock))
  loop = Loop(folder.run, folder, display, stop, clock, beacon)
  folder.write(loop.record | {'status': 'trunk' if run.branch_steps else 'running'})
  train_state = folder.restore_or_create(clock)
  # Which code does which steps, what is left out, and a lineage that went round a damaged trunk, are known by now.
  loop.record |= {'lineage': folder.lineage, 'codes': folder.codes(loop.record, int(train_state.step))}
  if folder.left_out:  # as the checkpoint or the config says
    loop.record |= {'left_out': folder.left_out}
  folder.write(loop.record | {'status': 'trunk' if run.branch_steps else 'running'})
  begins = int(train_state.step)
  folder.events.append({'event': 'code', 'step': begins, 'code': run.code})
  if begins:
    display.note(f'{"branched off" if folder.saved_step is None else "resumed"} at step {begins} of {run.steps}')
  return loop, train_state


@contextlib.contextmanager
def _recorded(folder, stop, clock):
  """Records in the events of a run that it was stopped or has failed."""
  try:
    yield
  except Stopped:
    folder.append_event('stopped', folder.saved_step or 0, clock, by_hand=stop.by_hand)
    folder.events.upload()  # before the exit code: what comes next may not wait for the rest
    raise
  except Exception as error:
    with contextlib.suppress(Exception):  # such as a full disk, or no network
      folder.events.append({'event': 'failed', 'why': str(error) or type(error).__name__,
                            **({'damaged': True} if isinstance(error, Damaged) else {})})
      folder.events.upload()
    raise


@functools.lru_cache(maxsize=1)  # runs that are trained together share it
def _eval_step(model, data, mesh):
  return jax.jit(mesh_lib.traced_on(mesh, evaluate.make_eval_step(model, device_augment.normalizer(data))),
                 out_shardings=mesh_lib.sharding(mesh))


class Loop:
  """The loop of a run and its compiled steps."""
  tampers: replay.Tampers = replay.SOUND  # of tests: a device that computes wrongly

  def __init__(self, run: Run, folder: RunFolder, display: Display, stop: Stop, clock: goodput.Clock, beacon: Beacon):
    self.run, self.folder, self.display, self.stop, self.clock = run, folder, display, stop, clock
    self._beacon = beacon
    self.record = run.record() | {'lineage': folder.lineage}  # the content of run.json
    self._reported: set[str] = set()  # pictures that could not be read
    self._saving, self._in_flight = Saving(run.saved_when, folder.checkpoints), InFlight(run, folder, display)
    self._eval_step = _eval_step(run.model, run.config.data, run.mesh)

  def to_end(self, train_state: TrainState, profile: bool = False) -> TrainState:
    """Trains until the length is reached or patience has run out, going back where the config says so."""
    run, step = self.run, int(train_state.step)
    self.catch_up(train_state)
    if step >= run.steps or self._out_of_patience():
      return train_state
    with contextlib.ExitStack() as stack:
      profiler = stack.enter_context(
          contextlib.closing(Profiler(self.folder.path / 'profile', step, run.steps, profile)))
      with self.compiling():
        program = Program(run, train_state, self.tampers, self.display.note)
      self.display.start(step, run.steps)
      stack.callback(self.display.stop)
      while True:
        try:
          return self._run(program, train_state, profiler)
        except health.Spike as spike:
          train_state = self._go_back(spike, train_state)

  def _run(self, program: Program, train_state: TrainState, profiler: Profiler) -> TrainState:
    """Trains to the end. The order in a step is log, evaluate, save."""
    step = int(train_state.step)
    with contextlib.closing(self._calls(program, step, profiler)) as calls:
      for count, operands in calls:
        profiler.before(step)
        step += count
        with self._in_flight.explained():
          train_state, metrics = program(train_state, step, operands)
        self.observe(step, metrics, count)
        train_state = self.after(train_state, step)
        if self._out_of_patience():
          break
    self.save_last(train_state, step)
    return train_state

  def _go_back(self, spike: health.Spike, train_state: TrainState) -> TrainState:
    """The state of the last save, from where the run goes on without the batch of a spike.

    The batches left out are in the record of each later checkpoint. A run that is stopped before the next save meets
    the same spike again. What comes out does not depend on where the last save was.

    Raises:
      UserError: too many batches have been left out.
    """
    run, folder, event = self.run, self.folder, spike.event
    self._in_flight.drop()
    most = run.config.train.most_rewinds
    with self._in_flight.explained():
      if len(folder.left_out) - len(set(run.config.train.leave_out)) >= most:
        raise UserError(f'{spike}. {most} batches have been left out for such a reason (train.most_rewinds)')
    batch = order.batch_of(event['step'] - 1, folder.left_out) + 1
    train_state = folder.go_back(train_state, batch)
    to = int(train_state.step)
    self.display.stop()
    self.display.start(to, run.steps)
    self._in_flight.record_event({**event, 'event': 'rewind', 'batch': batch, 'to': to, 'left_out': folder.left_out},
                       f'{spike}: back to step {to}, and batch {batch} is left out')
    self.record |= {'left_out': folder.left_out}
    folder.write(self.record | {'status': 'trunk' if run.branch_steps else 'running'})
    return train_state

  def catch_up(self, train_state: TrainState) -> None:
    """Makes up for an evaluation that was due when the run was stopped."""
    step = int(train_state.step)
    if self._due(step, self.run.eval_every) and not self.folder.evaluated(step):
      self._evaluate(train_state, step)

  def batches(self, step: int) -> Iterator[dict]:
    """Yields the batches from a step on, and measures the time spent waiting for them."""
    report = lambda errors: self._report(errors, step + 1)
    with contextlib.closing(self.run.train_batches(step, report, self.folder.left_out)) as batches:
      while True:
        with self.clock.measure('data'):
          batch = next(batches, None)
        if batch is None:
          return
        yield batch
        step += 1

  def observe(self, step: int, metrics: dict[str, Any], count: int = 1) -> None:
    """Queues the metrics of a call of `count` steps that ends at `step`, and checks those that are known by now.

    Raises:
      UserError: a loss or gradient is not finite, and the run must end.
    """
    self._in_flight.add(step, metrics, count)
    self._in_flight.wait(in_flight.AHEAD)

  def next_due(self, step: int, *others: int) -> int:
    """The next step at which something is due, or the next of `others`; a call of several steps ends there."""
    run, system = self.run, self.run.config.system
    local_every = system.local_every if system.local_dir else None
    every = filter(None, (run.log_every, run.eval_every, system.save_every, system.keep_every, local_every))
    return min([(step // n + 1) * n for n in every] + [s for s in (*others, *run.branch_steps) if s > step]
               + [run.steps])

  def is_due(self, step: int) -> bool:
    """Whether `after` has something to do after this step."""
    return (self._due(step, self.run.log_every) or self._due(step, self.run.eval_every) or self.stop.stop_requested()
            or self._saving.due(step, False) or self.folder.tier.due(step))

  def after(self, train_state: TrainState, step: int) -> TrainState:
    """Does what is due after a step, and returns the state.

    If the run was asked to stop, it saves at once and leaves an evaluation to the process that resumes it.

    Raises:
      Stopped: the run was asked to stop and has saved.
    """
    evaluates = self._due(step, self.run.eval_every)
    if self._due(step, self.run.log_every):
      train_state = self._log(train_state, step)
    try:
      self._stop_if_requested()
      if evaluates:
        self._evaluate(train_state, step)
    except Stopped:
      self._save(train_state, step)
      raise
    if self._saving.due(step, evaluates):
      self._save(train_state, step)
    if step < self.run.steps and self.folder.tier.due(step):  # the last step is saved in the run folder alone
      self._save(train_state, step, local=True)
    return train_state

  def save_last(self, train_state: TrainState, step: int) -> None:
    """Saves the last step of a run if it has not been saved."""
    if self.folder.saved_step != step:
      self._save(train_state, step)

  def finish(self, train_state: TrainState) -> dict[str, Any]:
    """Scores a run that has reached its end, records the results and returns them.

    That it has finished is written last, when all else is safe: checkpoints, rows, the events of every process.
    """
    results = self._results(train_state)
    self.folder.checkpoints.wait()
    self.folder.tier.remove()
    self.folder.append_event('finished', results['steps'], self.clock)
    self._beacon.close()
    self.folder.upload()
    processes.all_say('')
    self.folder.write(self.record | {'status': 'trunk' if self.run.branch_steps else 'finished', 'results': results})
    return results

  def _results(self, train_state: TrainState) -> dict[str, Any]:
    """Scores `test` once, with the final parameters, or with the best ones if the run has patience.

    A trunk is not scored, only its branches are.
    """
    config, rows, steps = self.run.config.evaluate, self.folder.val_rows, int(train_state.step)
    if self.run.branch_steps:
      return {'steps': steps}
    metrics = self.run.metrics
    val = evaluate.best_row(rows, config.metric, metrics) if config.patience and rows else rows[-1] if rows else None
    if val and val['step'] != steps:
      self.folder.checkpoints.wait()
      train_state = self.folder.restore(val['step'], train_state)
    test = self._evaluate(train_state, int(train_state.step), 'test')
    short = lambda row: row and {name: row[name] for name in metrics if name in row}
    calibrated = calibrating.of_run(self.run, self._scored(train_state), train_state.stats) if (
        calibrating.wanted(self.run)) else {}
    return {'step': int(train_state.step), 'steps': steps, 'val': short(val), 'test': short(test),
            'test_examples': self.run.data.size('test'), **({'calibration': calibrated} if calibrated else {})}

  def _scored(self, train_state: TrainState) -> dict:
    """The parameters that are scored."""
    return train_state.ema if self.run.config.optimizer.ema_decay else train_state.params

  def _calls(self, program: Program, step: int, profiler: Profiler) -> Iterator[tuple[int, tuple]]:
    """Yields (number of steps, operands) of each call from a step on."""
    if resident := program.resident:
      resident.orders = [self.run.data.train_order(self.run.config.seed, self.folder.left_out)]
      yield from dispatch.calls(step, self.run.steps, resident.most, lambda s: self.next_due(
          s, *profiler.range, *program.bounds(s)), self.timed(resident))
      return
    with contextlib.closing(self.batches(step)) as batches:
      for batch in batches:
        yield 1, (batch,)

  @contextlib.contextmanager
  def compiling(self) -> Iterator[None]:
    """Records the time of the `with` block as compilation."""
    start = time.perf_counter()
    with self.clock.measure('compile'):
      yield
    self.folder.events.append({'event': 'compile', 'seconds': round(time.perf_counter() - start, 3)})

  def timed(self, resident: dispatch.Resident) -> Callable:
    """The `operands` of `resident`, with their time measured."""
    def operands(step, count):
      with self.clock.measure('data'):
        return resident.operands(step, count)
    return operands

  def _stop_if_requested(self) -> None:
    if self.stop.stop_requested():
      raise Stopped

  def _due(self, step: int, every: int) -> bool:
    return step > 0 and (step % every == 0 or step == self.run.steps)

  def _out_of_patience(self) -> bool:
    return evaluate.out_of_patience(self.folder.val_rows, self.run.config.evaluate, self.run.metrics)

  def _report(self, errors: list[str], step: int) -> None:
    """Reports pictures that could not be read, each once. They keep their place in the batch, with weight 0."""
    for error in dict.fromkeys(errors):
      if error in self._reported:
        continue
      self._reported.add(error)
      self._in_flight.record_event({'event': 'unreadable', 'step': step, 'what': error}, f'skipped (weight 0): {error}')

  def _log(self, train_state: TrainState, step: int) -> TrainState:
    """Logs a row of means since the last row; returns the state with its sums reset to zero."""
    self._in_flight.wait()
    run, sums = self.run, jax.device_get(train_state.metrics)
    with np.errstate(invalid='ignore'):  # 0 / 0 where every step was skipped
      means = {name: sums[name] / sums['weight'] for name in run.objective.values}
      columns = {name: float(value) for name, value in run.objective.report(means).items()}
      grad_norm = sums['grad_norm'] / sums['steps']
    multiplier = schedule.multiplier(run.config.schedule, run.steps, step - 1, np)
    row = {'split': 'train', **run.position(step), **columns,
           'learning_rate': float(multiplier) * run.config.optimizer.learning_rate, 'grad_norm': float(grad_norm)}
    if 'skip' in (run.config.train.on_nonfinite, run.config.train.on_spike):
      row['skipped'] = int(sums['skipped'])
    self.folder.log(row)
    speed = self.display.row(row, run)
    self.folder.events.append({'event': 'train', 'step': step, 'images_per_s': round(speed, 1)})
    return state.reset_metrics(train_state)

  def _evaluate(self, train_state: TrainState, step: int, split: str = 'val') -> dict[str, Any] | None:
    """Scores a split, logs the row and returns it; None if the split is empty."""
    if not self.run.data.size(split):
      return None
    self._in_flight.wait()
    start = time.perf_counter()
    params = self._scored(train_state)
    batches = self.run.eval_batches(split, lambda errors: self._report(errors, step))
    with self.clock.measure('evaluate'), contextlib.closing(batches):
      more = functools.partial(self._more, params, train_state.stats, split)
      scores = evaluate.evaluate(self._eval_step, self.run.objective, params, train_state.stats,
                                 self._until_stopped(batches), more)
      if self.run.config.evaluate.probe:
        scores |= probing.scores(self.run, params, train_state.stats, split)
    row = {'split': split, **self.run.position(step), **scores}
    self.folder.log(row)
    seconds = time.perf_counter() - start
    self.folder.events.append({'event': 'evaluate', 'split': split, 'step': step, 'seconds': round(seconds, 3)})
    self.display.evaluated(row, self.run.objective)
    self.display.pause(seconds)
    return row

  def _more(self, params: dict, stats: dict, split: str, kept: dict) -> dict[str, float]:
    """The columns of the objective's evaluators."""
    every = [evaluator(self.run, params, stats, split, kept) for evaluator in self.run.objective.evaluators]
    return {name: value for columns in every for name, value in columns.items()}

  def _until_stopped(self, batches: Iterator[dict]) -> Iterator[dict]:
    for batch in batches:
      self._stop_if_requested()
      yield batch

  def _save(self, train_state: TrainState, step: int, local: bool = False) -> None:
    self._in_flight.wait()  # a state whose metrics are not finite is never saved
    plain = state.to_plain(train_state)
    arrays = {name: plain[name] for name in sound.CHECKED}
    with self._in_flight.explained(may_diverge=True):
      sound.check_finite(arrays, step)
    with self._in_flight.explained():
      sound.check_copies(arrays, step)
    with self.clock.measure('save'):
      stalled = self.folder.save(train_state, step, local)
    if not local:
      self._saving.done()
    self.folder.append_event('local_save' if local else 'save', step, self.clock, stalled_s=round(stalled, 4))
    self.display.pause(stalled)
