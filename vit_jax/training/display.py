"""Terminal output of a run: a header, progress, and a summary that names the next commands."""

import os
import shlex
import time
from typing import Any

import jax
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from vit_jax import commands, goodput, records
from vit_jax.console import Console
from vit_jax.cost import hardware
from vit_jax.goodput import duration
from vit_jax.objectives import calibration
from vit_jax.objectives.objective import Objective
from vit_jax.parallel import processes
from vit_jax.training import evaluate
from vit_jax.training import run as run_lib
from vit_jax.training.run import Run


class Display:
  """Prints to a terminal (a progress bar) or to a plain stream (a line per training row).

  Only one of several processes prints.
  """

  def __init__(self, console: Console | None = None):
    self.console = console or Console(highlight=False, quiet=not processes.is_writer())
    self._bar = self._task = None
    self._since, self._last_step, self._shown = 0.0, 0, ''

  def header(self, run: Run, name: str, workdir: str | os.PathLike, probe_seconds: float | None = None) -> None:
    """Prints what will be done, before anything is compiled.

    `probe_seconds` is the estimated time of a run that stops at frozen features; None for all other runs.
    """
    c, d, (height, width, channels) = run.config, run.data, run.data.image_shape
    device = jax.devices()[0]
    end = run.position(run.steps)
    mesh = ' x '.join(f'{axis} {size}' for axis, size in run.mesh.shape.items() if size > 1) or 'one device'
    rows = {
        'recipe': f'{name} ({c.family})',
        'model': f'{run.params:,} parameters ({run.params_non_embedding:,} without embeddings and head), '
                 f'{_giga(run.flops_per_example_forward)} GFLOPs per image',
        'data': f'{d.name}, {d.unique_examples:,} training images ({d.size("val"):,} val, {d.size("test"):,} test), '
                f'{d.num_classes} classes, {height}x{width}x{channels}',
        **_texts(d),
        **({'starts from': _start(run.pretrained)} if run.pretrained else {}),
        **({'teacher': f'{run.teacher.workdir} ({run.config.distill.kind} labels)'} if run.teacher else {}),
        'length': f'{run.steps:,} steps of {c.data.batch_size} images = {end["epochs"]:.1f} epochs, '
                  f'{end["flops"]:.2e} FLOPs',
        'devices': f'{jax.device_count()} x {device.device_kind} ({mesh})' + (
            f', {jax.process_count()} processes' if jax.process_count() > 1 else ''),
        'folder': os.fspath(workdir),
        'estimate': f'{duration(run_lib.estimate_seconds(run))} (a rough guess; the progress bar is more accurate)'}
    if probe_seconds is not None:
      rows['estimate'] = (f'{duration(probe_seconds)} for features of the frozen model, k-NN and a linear probe '
                          f'(training all of it: {duration(run_lib.estimate_seconds(run))}; rough guesses)')
      del rows['length']
    if (parts := c.system.microbatches) > 1 and run.model.stats_shapes():
      rows['batch norm'] = (f'statistics are of each of the {parts} micro-batches of a step '
                            f'({c.data.batch_size // parts} images), not of the whole batch')
    wide = max(map(len, rows)) + 2
    for key, value in rows.items():  # not a table, which would break a path where a line is full
      self.console.print(Text.assemble((key.ljust(wide), 'bold'), value), soft_wrap=True)

  def note(self, text: str) -> None:
    """Prints a line above the bar."""
    # Highlighting takes longer than everything else, so it is done only on a terminal.
    self.console.print(text, markup=False, soft_wrap=True, highlight=self.console.is_terminal)

  def start(self, step: int, steps: int) -> None:
    """Starts the bar, and the clock by which images/s are measured."""
    self._since, self._last_step = time.perf_counter(), step
    if self.console.is_terminal:
      columns = (TextColumn('{task.completed}/{task.total} steps'), BarColumn(), TextColumn('{task.description}'),
                 TimeRemainingColumn())
      self._bar = Progress(*columns, console=self.console, transient=True)
      self._task = self._bar.add_task('', total=steps, completed=step)
      self._bar.start()

  def step(self, step: int, loss: float) -> None:
    """Updates the bar; called after each step."""
    if self._bar:
      self._bar.update(self._task, completed=step, description=f'loss {loss:.4f}{self._shown}')

  def row(self, row: dict[str, Any], run: Run) -> float:
    """Shows a training row; returns images/s since the last one, without evaluation and saving."""
    now = time.perf_counter()
    speed = (row['step'] - self._last_step) * run.config.data.batch_size / max(now - self._since, 1e-9)
    self._since, self._last_step = now, row['step']
    others = ''.join(f', {words}' for words in _metrics(run.objective, row, digits=1)[1:])
    self._shown = f'{others}, {speed:,.0f} images/s'
    if peak := hardware.peak_flops(jax.devices()[0].device_kind):
      mfu = speed * run.flops_per_example_train / peak / jax.device_count()
      self._shown += f', MFU {mfu:.1%}'
    if not self._bar:
      left = (run.steps - row['step']) * run.config.data.batch_size / speed
      self.progress(f'step {row["step"]}/{run.steps}, loss {row["loss"]:.4f}{self._shown}, {duration(left)} left')
    return speed

  def progress(self, text: str) -> None:
    """Prints how far the run is, where there is no bar."""
    self.note(text)

  def evaluated(self, row: dict[str, Any], objective: Objective) -> None:
    """Prints the result of an evaluation."""
    self.note(f'step {row["step"]}, {row["split"]} {", ".join(_metrics(objective, row))}')

  def pause(self, seconds: float) -> None:
    """Excludes the time of an evaluation or a save from images/s."""
    self._since += seconds

  def stop(self) -> None:
    """Removes the bar."""
    if self._bar:
      self._bar.stop()
      self._bar = None

  def stopped(self, workdir: str | os.PathLike) -> None:
    """Prints that the run was stopped, and from which step the same command resumes it."""
    steps = records.saved_steps(workdir)
    saved = f'saved at step {steps[-1]:,}' if steps else 'nothing to save yet'
    self.note(f'stopped, {saved}; the same command resumes the run')

  def probed(self, results: dict[str, Any], command: str) -> None:
    """Prints the results of frozen features; `command` is the one that trains the whole model."""
    examples, confidence = results['examples'], results.get('confidence')  # which older records do not have
    sure = '' if confidence is None else f', mean confidence {confidence:.1%} where it is right'
    self.note(f'\nk-NN         test accuracy {results["knn"]:.2%}\n'
              f'linear probe test accuracy {results["linear"]:.2%}{sure} ({examples["test"]:,} images; trained on '
              f'{examples["train"]:,})')
    if calibrated := results.get('calibration'):
      self.note(f'calibrated   {calibration.words(calibrated)}')
    self.note(f'\nbundle       {results["bundle"]} (the model with the linear probe as its head)\n'
              f'use it       {commands.written("predict", shlex.quote(results["bundle"]))} PICTURE_OR_FOLDER...\n'
              f'train all    {command}')

  def summary(self, results: dict[str, Any], objective: Objective, workdir: str | os.PathLike,
              bundle: str | os.PathLike | None = None) -> None:
    """Prints the results, where they are stored, and what to do next."""
    quoted, usable = shlex.quote(os.fspath(workdir)), shlex.quote(os.fspath(bundle or workdir))
    if 'test' not in results:
      return self.note(f'\ntrunk of {results["steps"]:,} steps: start its branches with --trunk={quoted}')
    test, val, steps = results['test'], results['val'], f'{results["steps"]:,} steps'
    train = commands.written('train')
    if results['step'] != results['steps']:
      steps = f'{results["step"]:,} steps (the best on validation, of {steps})'
    words = lambda row: ', '.join(reversed(_metrics(objective, row)))
    self.note(f'\ntest {words(test)} ({results["test_examples"]:,} images, {steps})')
    if val:
      self.note(f'val  {words(val)}')
    if calibrated := results.get('calibration'):
      self.note(f'calibrated   {calibration.words(calibrated)}')
      test = test | {'loss': calibrated.get('test', {}).get('after', test)['loss']}
    classes = ((records.read_run(workdir) or {}).get('data') or {}).get('classes') or ()
    if doubt := objective.doubt(test, results['test_examples'], len(classes)):
      self.note(f'note         {doubt}')
    self.note(f'\ntime         {_time(workdir)}')
    self.note('\n'.join(filter(None, (
        f'run folder   {os.fspath(workdir)} (metrics.jsonl, events.jsonl, checkpoints/)',
        f'bundle       {os.fspath(bundle)}' if bundle else None,
        f'use it       {commands.written("predict", f"{usable} PICTURE_OR_FOLDER... {objective.use}")}'
        if objective.predicts_classes or objective.use else None,
        f'look at it   {train} --report={quoted}'
        if objective.predicts_classes or 'text' in objective.inputs((1, 1, 3)) else None,
        None if objective.predicts_classes else
        f'fine-tune it {train} --config=finetune_folder --config.data.source=folder:PICTURES '
        f'--config.pretrained.path={usable}',
        f'see curves   uvx tensorboard --logdir={quoted}',
        'train more   another recipe of configs/, or any key: --config.train.epochs=100'))))


def _metrics(objective: Objective, row: dict[str, Any], digits: int = 2) -> list[str]:
  """The metrics that are shown, in words: 'loss 0.1234', 'accuracy 97.10%'."""
  known = {**objective.metrics, **objective.evaluated, **evaluate.PROBE}
  shown = {name: metric for name, metric in known.items() if metric.shown and name in row}
  return [f'{name} {row[name]:.{digits}%}' if metric.share else f'{name} {row[name]:.4f}'
          for name, metric in shown.items()]


def _texts(data):
  """The row about captions that are cut off, if there are any."""
  cut, count = data.cut_off('train')
  return {'texts': f'{cut:,} of {count:,} training captions are longer than data.text.length='
                   f'{data.config.text.length} tokens, and are cut off'} if cut else {}


def _start(pretrained):
  """Says what a run starts from, which of its parameters are new, and what of the model is set otherwise."""
  tops = sorted({name.partition('/')[0] for name in pretrained.new})
  notes = [f'new: {", ".join(tops)}'] * bool(tops) + list(pretrained.otherwise)
  return pretrained.source + (f' ({"; ".join(notes)})' if notes else '')


def _time(workdir):
  """Says how the time was spent, over all restarts."""
  spent = goodput.breakdown(records.read_events(os.path.join(workdir, records.EVENTS)))
  return f'{duration(sum(spent.values()))}: {goodput.describe(spent)}'


def _giga(flops: float) -> str:
  return f'{flops / 1e9:.3g}'
