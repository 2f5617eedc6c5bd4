"""Kills one of several processes, or all of them, at random moments: how the others end, what is lost, and the end.

  python experiments/faults/lost.py --out=FOLDER --only=one --processes=2 --kills=20
  python experiments/faults/lost.py --out=FOLDER --only=one --processes=4 --kills=20
  python experiments/faults/lost.py --out=FOLDER --only=all --processes=1 --kills=10 --save_every=200
  python experiments/faults/lost.py --out=FOLDER --only=all --processes=2 --kills=10 --save_every=200

The run is a small one on the digits. `one`: a random one of the processes is killed, in turn within a second after the
run has reached a random one of several moments (it reads its checkpoint, compiles, takes its first step, logs), and
after it has saved again; the others must end with 134 (or by SIGABRT). `all`: all are killed at once, and the run has a
local tier of `--local_seconds`; what is lost is the time between the start of the save that the run resumes from and
the kill. The run folder gets its own saves every `--save_every` steps, in the background. In both, the run's end must
equal that of an undisturbed one, byte for byte.
"""

import functools
import json
import os
import pathlib
import platform
import select
import signal
import socket
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

_OUT = flags.DEFINE_string('out', None, 'Where the runs are written. One that has ended undisturbed is not repeated.',
                           required=True)
_ONLY = flags.DEFINE_enum('only', 'one', ['one', 'all'], 'Whom to kill.')
_PROCESSES = flags.DEFINE_integer('processes', 2, 'Processes of a run, with one device each.')
_KILLS = flags.DEFINE_integer('kills', 20, 'Kills over one run.')
_STEPS = flags.DEFINE_integer('steps', 4000, 'Length of the run.')
_SAVE_EVERY = flags.DEFINE_integer('save_every', 100, 'Steps between checkpoints in the run folder.')
_SECONDS = flags.DEFINE_float('local_seconds', 1.0, 'The most time that may be lost, with `all`.')
_SEED = flags.DEFINE_integer('seed', 0, 'Of the moments.')
ROOT = pathlib.Path(__file__).parents[2]
_HEARTBEAT_SECONDS = 30  # longer than a busy machine makes a process wait
_LOST = (134, -signal.SIGABRT)
_EARLY = (('begun',), ('start', 'resume'), ('compile',), ('train',))  # it reads its checkpoint, compiles, steps, logs
_SMALL = [f'--config.{name}' for name in ('train.epochs=0', 'model.patch_size=4', 'model.width=16', 'model.depth=2',
                                          'model.mlp_dim=32', 'model.num_heads=2', 'data.batch_size=32')]


class Process:
  """Programs one after another, each a fork of a process that has made their imports (`tests/fork_server.py`)."""

  def __init__(self):
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '1',
                                'JAX_COMPILATION_CACHE_DIR': str(pathlib.Path(_OUT.value).absolute() / 'compiled')}
    self._server = subprocess.Popen([sys.executable, ROOT / 'tests' / 'fork_server.py'], text=True, env=environment,
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    self._environment, self._code = environment, None

  def start(self, arguments, log):
    """Starts `python -m vit_jax.main`; what it prints goes to a file."""
    self._code, files = None, {'out': log.with_suffix('.out'), 'err': log.with_suffix('.err')}
    for path in files.values():
      path.unlink(missing_ok=True)
    request = {'module': 'vit_jax.main', 'arguments': arguments, 'env': self._environment, 'cwd': str(ROOT),
               **{name: str(path) for name, path in files.items()}}
    print(json.dumps(request), file=self._server.stdin, flush=True)

  def poll(self):
    """The exit code, None if it runs."""
    if self._code is None and select.select([self._server.stdout], [], [], 0)[0]:
      self._code = int(self._server.stdout.readline())
    return self._code

  def wait(self):
    """The exit code, as `subprocess` gives it."""
    while self.poll() is None:
      time.sleep(0.01)
    return self._code

  def kill(self):
    """Sends SIGKILL."""
    server = self._server.pid
    for pid in pathlib.Path(f'/proc/{server}/task/{server}/children').read_text().split():
      os.kill(int(pid), signal.SIGKILL)


@functools.cache
def process(i):
  return Process()


def start(workdir, *words):
  """Starts the processes of a run; what they print goes to files beside it."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  count, started = _PROCESSES.value, [process(i) for i in range(_PROCESSES.value)]
  every = 1 if _ONLY.value == 'all' else 5  # several processes look at the local tier's clock when a row is logged
  for i, one in enumerate(started):
    joined = () if count == 1 else (f'--distributed=127.0.0.1:{port}', f'--num_processes={count}', f'--process_id={i}',
                                    f'--heartbeat_s={_HEARTBEAT_SECONDS}')
    one.start(['--config=configs/quickstart.py', *_SMALL, f'--config.train.steps={_STEPS.value}',
               f'--config.system.log_every={every}', f'--config.evaluate.every={_STEPS.value // 4}',
               f'--workdir={workdir.absolute()}', *joined, *words], workdir.absolute().with_name(f'{workdir.name}-{i}'))
  return started


def end(workdir):
  """(metrics.jsonl, the arrays of the final checkpoint)."""
  import jax
  from orbax import checkpoint as ocp

  from vit_jax import records
  path = (workdir / records.CHECKPOINTS / str(records.saved_steps(workdir)[-1]) / 'state').absolute()
  reader = ocp.PyTreeCheckpointer()
  on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(path).item_metadata.tree)
  arrays = jax.tree_util.tree_leaves_with_path(reader.restore(path, restore_args=on_host))
  return ((workdir / records.METRICS).read_bytes(),
          {jax.tree_util.keystr(path): np.asarray(array).tobytes() for path, array in arrays})


def events(workdir, *names):
  from vit_jax import records
  rows = records.read_rows(workdir / records.EVENTS) if (workdir / records.EVENTS).exists() else []
  return [row for row in rows if row['event'] in names]


def until(started, condition):
  """Waits until a condition holds or a process has ended; returns whether all are alive."""
  while all(process.poll() is None for process in started) and not condition():
    time.sleep(0.05)
  return all(process.poll() is None for process in started)


def kill_one(workdir, rng):
  """Kills one of the processes again and again; returns how many kills ended wrong, and how many there were."""
  wrong, words = 0, (f'--config.system.save_every={_SAVE_EVERY.value}',)
  for i in range(_KILLS.value):
    names, new = (('save',), 2) if i % 2 else (_EARLY[rng.integers(len(_EARLY))], 1)  # saves: so that the run gets on
    enough, rows = len(events(workdir, *names)) + new, len(events(workdir, 'train'))
    started = start(workdir, *words)
    alive = until(started, lambda names=names, enough=enough: len(events(workdir, *names)) >= enough)
    time.sleep(rng.uniform(0, 1))
    if not alive or not until(started, lambda: True):
      return wrong + ended_early(started), i
    victim = int(rng.integers(len(started)))
    started[victim].kill()
    killed = time.monotonic()
    codes, seconds = finish(started), time.monotonic() - killed
    others = codes[:victim] + codes[victim + 1:]
    bad = any(code not in _LOST for code in others)
    wrong += bad
    logged = ['no step', *(f'step {row["step"]}' for row in events(workdir, 'train')[rows:])][-1]
    print(f'kill {i + 1}: process {victim} of {len(codes)} after {names[-1]}, {logged} logged; the others '
          f'ended with {others} after {seconds:.1f} s{" WRONG" if bad else ""}', flush=True)
  assert finish(start(workdir, *words)) == [0] * _PROCESSES.value
  return wrong, _KILLS.value


def kill_all(workdir, rng):
  """Kills all processes again and again; returns how often more than the interval was lost, and all."""
  local = pathlib.Path(_OUT.value).absolute() / 'local'
  words = (f'--config.system.save_every={_SAVE_EVERY.value}', f'--config.system.local_dir={local}',
           f'--config.system.local_seconds={_SECONDS.value}')
  lost, killed, done = [], None, 0
  while True:
    saved, begun = len(events(workdir, 'local_save')), len(events(workdir, 'resume'))
    started = start(workdir, *words)
    if killed is not None:
      until(started, lambda begun=begun: len(events(workdir, 'resume')) > begun)
      step = events(workdir, 'resume')[-1]['step']
      in_folder = events(workdir, 'save')
      saves = (*events(workdir, 'local_save'), *in_folder)
      lost.append(killed - max(row['time'] - row['stalled_s'] for row in saves if row['step'] == step))
      print(f'kill {done}: resumed at step {step}, {lost[-1]:.2f} s lost; saves in the run folder: {len(in_folder)}, '
            f'the last of step {max((row["step"] for row in in_folder), default=0)}', flush=True)
    if done == _KILLS.value:
      break
    alive = until(started, lambda saved=saved: len(events(workdir, 'local_save')) > saved + 1)
    time.sleep(rng.uniform(0, _SECONDS.value))
    if not alive or not until(started, lambda: True):
      return sum(seconds > _SECONDS.value for seconds in lost) + ended_early(started), done
    for process in started:
      process.kill()
    killed, done = time.time(), done + 1
    finish(started)
  assert finish(started) == [0] * _PROCESSES.value
  assert not list(local.iterdir()), 'the tier of a finished run is removed'
  longest = max(row['stalled_s'] for row in events(workdir, 'local_save'))
  print(f'lost: {max(lost):.2f} s at most, {np.mean(lost):.2f} s on average, with an interval of {_SECONDS.value} s; a '
        f'local save blocked {longest:.3f} s at most')
  return sum(seconds > _SECONDS.value for seconds in lost), done


def ended_early(started):
  """Whether a run that ended before its last kill has an exit code that is wrong."""
  codes = finish(started)
  print(f'ended with {codes} before it could be killed', flush=True)
  return any(codes)


def finish(started):
  return [process.wait() for process in started]


def processor():
  names = [line.partition(':')[2].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')]
  return f'{os.cpu_count()} x {names[0] if names else platform.processor()}'


def main(_):
  out = pathlib.Path(_OUT.value)
  out.mkdir(parents=True, exist_ok=True)
  print(f'{_PROCESSES.value} processes on {processor()}', flush=True)
  assert finish(start(out / 'undisturbed')) == [0] * _PROCESSES.value
  kill = kill_one if _ONLY.value == 'one' else kill_all
  wrong, kills = kill(out / 'killed', np.random.default_rng(_SEED.value))
  same = end(out / 'killed') == end(out / 'undisturbed')
  print(f'{kills} of {_KILLS.value} kills of {_ONLY.value} of {_PROCESSES.value}: {wrong} wrong; the end is '
        f'{"the same, byte for byte" if same else "ANOTHER"}')
  return int(bool(wrong) or not same or kills < _KILLS.value)


if __name__ == '__main__':
  app.run(main)
