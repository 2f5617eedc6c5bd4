"""The one train loop: train, log, evaluate, save, and go on from where a run was stopped."""

import collections
import contextlib
import math
import os
import time
from collections.abc import Callable
from typing import Any

import jax

from vit_jax.data import device
from vit_jax.errors import UserError
from vit_jax.parallel import mesh as mesh_lib
from vit_jax.training import evaluate, schedule, state
from vit_jax.training.display import Display
from vit_jax.training.folder import RunFolder
from vit_jax.training.run import Run
from vit_jax.training.state import TrainState
from vit_jax.training.step import trace

PROFILE_AFTER, PROFILE_STEPS = 10, 5  # steps that a --profile trace leaves out (warm-up) and holds
IN_FLIGHT = 2  # steps that the host may run ahead of the devices
MOST_NAMED = 5  # unreadable pictures that are named on the screen; events.jsonl names them all


def train(run: Run, workdir: os.PathLike, display: Display, profile: bool = False,
          trunk: os.PathLike | None = None) -> dict[str, Any]:
  """Trains a run to its end in `workdir`, from where it stands, and returns its results.

  metrics.jsonl and the final parameters are byte-equal to those of an uninterrupted run on the same devices.

  Args:
    trunk: the folder of a trunk (`branch`): the run starts where it leaves it, and its log begins there.

  Raises:
    UserError: the loss is not a number any more, a picture does not decode and data.on_error is 'stop', or the
      trunk is not this run's.
  """
  with contextlib.closing(RunFolder(run, workdir, trunk)) as folder:
    record = folder.run.record() | {'lineage': folder.lineage}
    folder.write(record | {'status': 'trunk' if run.branch_steps else 'running'})
    train_state = folder.restore_or_create()
    if begins := int(train_state.step):
      display.note(f'{"branched off" if folder.saved_step is None else "resumed"} at step {begins} of {run.steps}')
    loop = _Loop(folder.run, folder, display)
    train_state = loop.to_end(train_state, profile)
    results = loop.results(train_state)
    folder.events.append({'event': 'finished', 'step': results['steps']})
    folder.checkpoints.wait()
    folder.write(record | {'status': 'trunk' if run.branch_steps else 'finished', 'results': results})
  return results


class _Loop:
  """A run's compiled steps, and the loop around them."""

  def __init__(self, run: Run, folder: RunFolder, display: Display):
    self.run, self.folder, self.display = run, folder, display
    self._eval_step = jax.jit(mesh_lib.on(run.mesh, evaluate.make_eval_step(run.model, device.normalize)),
                              out_shardings=mesh_lib.sharding(run.mesh))
    self._in_flight = collections.deque()  # (step, loss) that have not been waited for
    self.unreadable = 0  # pictures met so far that could not be read

  def to_end(self, train_state: TrainState, profile: bool) -> TrainState:
    """Steps until the length is reached or patience is out. The order in a step is log, evaluate, save."""
    run, folder, step = self.run, self.folder, int(train_state.step)
    if self._due(step, run.eval_every) and not folder.evaluated(step):
      self._evaluate(train_state, step)  # it was due when the run was stopped
    if step >= run.steps or self._out_of_patience():
      return train_state
    train_step = self._compile()
    self.display.start(step, run.steps)
    batches = run.train_batches(step, lambda errors: self._report(errors, step + 1))
    with contextlib.ExitStack() as stack:
      stack.callback(self.display.stop)
      stack.enter_context(contextlib.closing(batches))
      tracer = stack.enter_context(contextlib.closing(_Tracer(folder.path / 'profile', step, run.steps, profile)))
      for batch in batches:
        tracer.before(step)
        train_state, loss = train_step(train_state, batch)
        step += 1
        self._in_flight.append((step, loss))
        self._wait(IN_FLIGHT)
        if self._due(step, run.log_every):
          train_state = self._log(train_state, step)
        if self._due(step, run.eval_every):
          self._evaluate(train_state, step)
        if self._save_due(step):
          self._save(train_state, step)
        if self._out_of_patience():
          break
      if folder.saved_step != step:
        self._save(train_state, step)
    return train_state

  def results(self, train_state: TrainState) -> dict[str, Any]:
    """Scores `test`, once, with the final parameters, or with the best ones where patience was asked for.

    A trunk is not scored: its branches are.
    """
    config, rows, steps = self.run.config.evaluate, self.folder.val_rows, int(train_state.step)
    if self.run.branch_steps:
      return {'steps': steps}
    val = evaluate.best_row(rows, config.metric) if config.patience and rows else rows[-1] if rows else None
    if val and val['step'] != steps:
      self.folder.checkpoints.wait()
      train_state = self.folder.restore(val['step'], train_state)
    test = self._evaluate(train_state, int(train_state.step), 'test')
    short = lambda row: row and {name: row[name] for name in ('loss', 'accuracy', 'error')}
    return {'step': int(train_state.step), 'steps': steps, 'val': short(val), 'test': short(test),
            'test_examples': self.run.data.size('test')}

  def _compile(self) -> Callable:
    run, start = self.run, time.perf_counter()
    compiled = trace(run.model, run.config, run.steps, run.mesh).lower().compile()
    self.folder.events.append({'event': 'compile', 'seconds': round(time.perf_counter() - start, 3)})
    return compiled

  def _due(self, step: int, every: int) -> bool:
    return step > 0 and (step % every == 0 or step == self.run.steps)

  def _save_due(self, step: int) -> bool:
    if step in self.run.branch_steps:
      return True
    every, evaluated = self.run.config.system.save_every, self._due(step, self.run.eval_every)
    if every is None or (evaluated and self.run.config.evaluate.patience):  # any of these may be the best
      return evaluated
    return self._due(step, every)

  def _out_of_patience(self) -> bool:
    return evaluate.out_of_patience(self.folder.val_rows, self.run.config.evaluate)

  def _report(self, errors: list[str], step: int) -> None:
    """Names the pictures that could not be read; they kept their place in the batch with weight 0."""
    for error in errors:
      self.unreadable += 1
      self.folder.events.append({'event': 'unreadable', 'step': step, 'what': error, 'count': self.unreadable})
      if self.unreadable <= MOST_NAMED:
        self.display.note(f'skipped (weight 0): {error}')

  def _wait(self, ahead: int) -> None:
    """Waits until at most `ahead` steps are in flight; a loss that is not a number ends the run."""
    while len(self._in_flight) > ahead:
      step, loss = self._in_flight.popleft()
      loss = float(loss)
      if not math.isfinite(loss):
        saved = self.folder.saved_step
        good = f'the last good checkpoint is that of step {saved}' if saved else 'no checkpoint was saved yet'
        raise UserError(f'the loss is {loss} at step {step}; {good}. A lower optimizer.learning_rate '
                        f'(now {self.run.config.optimizer.learning_rate}) or a longer schedule.warmup_steps may help')
      self.display.step(step, loss)

  def _log(self, train_state: TrainState, step: int) -> TrainState:
    """A row of means since the last one; returns the state with the sums set back to zero."""
    self._wait(0)
    run, sums = self.run, jax.device_get(train_state.metrics)
    multiplier = schedule.multiplier(run.config.schedule, run.steps, step - 1)
    row = {'split': 'train', **run.position(step), 'loss': float(sums['loss'] / sums['weight']),
           'accuracy': float(sums['correct'] / sums['weight']),
           'error': float(1 - sums['correct'] / sums['weight']),
           'learning_rate': float(multiplier) * run.config.optimizer.learning_rate,
           'grad_norm': float(sums['grad_norm'] / sums['steps'])}
    self.folder.log(row)
    speed = self.display.row(row, run)
    self.folder.events.append({'event': 'train', 'step': step, 'images_per_s': round(speed, 1)})
    return state.reset_metrics(train_state)

  def _evaluate(self, train_state: TrainState, step: int, split: str = 'val') -> dict[str, Any] | None:
    """Scores a split and logs it; None where `val` was switched off."""
    if not self.run.data.size(split):
      return None
    self._wait(0)
    start = time.perf_counter()
    params = train_state.ema if self.run.config.optimizer.ema_decay else train_state.params
    batches = self.run.eval_batches(split, lambda errors: self._report(errors, step))
    scores = evaluate.evaluate(self._eval_step, params, train_state.stats, batches)
    row = {'split': split, **self.run.position(step), **scores}
    self.folder.log(row)
    seconds = time.perf_counter() - start
    self.folder.events.append({'event': 'evaluate', 'split': split, 'step': step, 'seconds': round(seconds, 3)})
    self.display.evaluated(row)
    self.display.pause(seconds)
    return row

  def _save(self, train_state: TrainState, step: int) -> None:
    self._wait(0)  # a state whose loss is not a number is never saved
    start = time.perf_counter()
    self.folder.save(train_state, step)
    self.display.pause(time.perf_counter() - start)


class _Tracer:
  """A profiler trace of a few steps, for XProf (`xprof --logdir=WORKDIR/profile`)."""

  def __init__(self, folder, first: int, steps: int, wanted: bool):
    start = first + min(PROFILE_AFTER, max(steps - first - PROFILE_STEPS, 0))
    self._folder, self._range, self._running = folder, (start, start + PROFILE_STEPS) if wanted else (-1, -1), False

  def before(self, step: int) -> None:
    """Called before each step, with the number of finished ones."""
    if step == self._range[0]:
      jax.profiler.start_trace(os.fspath(self._folder))
      self._running = True
    elif step == self._range[1]:
      self.close()

  def close(self) -> None:
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
