"""Runs of the command line that are stopped, killed or damaged, and the files that they leave."""

import pathlib
import socket
import subprocess
import time

import command_line

from vit_jax import records

STEPS = 120
RECIPE = command_line.recipe(
    'c.model.depth, c.model.dropout = 1, 0.1',
    "c.data.augment.crop, c.data.augment.crop_padding, c.data.augment.mixup = 'pad', 1, 0.2",
    'c.optimizer.ema_decay = 0.9', f'c.train.steps = {STEPS}',
    'c.evaluate.every, c.system.log_every, c.system.save_every = 50, 7, 20')


class Faults:
  """Starts runs of a small recipe on the digits, which share compiled programs like the runs of a sweep."""

  def __init__(self, folder: pathlib.Path):
    self.recipe = folder / 'recipe.py'
    self.recipe.write_text(RECIPE)
    self._environment = command_line.ON_CPU | {
        'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0', 'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0'}

  def start(self, workdir, *flags, cached=True, **popen):
    """Starts a run in the background, with its output as a pipe of lines."""
    command = command_line.command('main', f'--config={self.recipe}', f'--workdir={workdir}', *flags)
    environment = self._environment if cached else self._environment | {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    return subprocess.Popen(command, cwd=command_line.ROOT, env=environment, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, **popen)

  def start_many(self, workdir, count, *flags):
    """Starts a run in several processes with one device each."""
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      address = f'--distributed=127.0.0.1:{free.getsockname()[1]}'
    return [self.start(workdir, *flags, address, f'--num_processes={count}', f'--process_id={i}', '--heartbeat_s=10')
            for i in range(count)]

  def run(self, workdir, *flags):
    """Runs to the end; returns (exit code, stdout, stderr)."""
    process = self.start(workdir, *flags)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err

  def until(self, process, condition, seconds=120):
    """Waits for a condition while the process is alive; returns whether it became true."""
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
      time.sleep(0.002)
    return condition()


def events(workdir, name):
  """The rows of one kind in events.jsonl."""
  return [row for row in records.read_rows(workdir / records.EVENTS) if row['event'] == name]


def end(workdir):
  """(metrics.jsonl, {name: bytes of the array} of the final checkpoint)."""
  return (workdir / records.METRICS).read_bytes(), command_line.final_arrays(workdir)
