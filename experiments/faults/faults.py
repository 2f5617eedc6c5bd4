"""Does everything to a run that can happen to one, and compares its end with an undisturbed run's, byte for byte.

  python experiments/faults/faults.py --only=kills,signals,files,flips,disk,elastic,lost

Ends with a table: the fault, how often it was tried, how often something was lost.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

_ALL = ['kills', 'signals', 'files', 'flips', 'disk', 'elastic', 'lost']
_ONLY = flags.DEFINE_list('only', _ALL, 'Which faults.')
_STEPS = flags.DEFINE_integer('steps', 1000, 'The length of the quickstart run that they happen to.')
_KILLS = flags.DEFINE_integer('kills', 25, 'SIGKILLs at random moments over one run.')
_SIGNALS = flags.DEFINE_integer('signals', 10, 'Runs that get one SIGTERM at a random moment.')
_FLIPS = flags.DEFINE_integer('flips', 200, 'Bits that are flipped in array data, one at a time.')


class Lab:
  """Runs of one recipe in a temporary folder, and the end of an undisturbed one."""

  def __init__(self, folder):
    self.folder, self.rng = folder, np.random.default_rng(0)
    self._environment = os.environ | {
        'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': str(folder / 'compiled'),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2'}
    self.whole = folder / 'undisturbed'
    assert self.run(self.whole) == 0
    self._like = None
    self.expected = self.end(self.whole)

  def start(self, workdir, *words, devices=1):
    command = [sys.executable, '-m', 'vit_jax.main', '--config=configs/quickstart.py', '--config.train.epochs=0',
               f'--config.train.steps={_STEPS.value}', '--config.system.log_every=5', '--config.system.save_every=25',
               f'--workdir={workdir}', *words]
    self.log = open(self.folder / 'log.txt', 'w+')
    environment = self._environment | {'JAX_NUM_CPU_DEVICES': str(devices)}
    return subprocess.Popen(command, env=environment, stdout=self.log, stderr=subprocess.STDOUT)

  def start_two(self, workdir, *words):
    """A run in two processes with two devices each."""
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      address = f'--distributed=127.0.0.1:{free.getsockname()[1]}'
    words = (*words, address, '--num_processes=2', '--heartbeat_s=10')
    return [self.start(workdir, *words, f'--process_id={i}', devices=2) for i in range(2)]

  def run(self, workdir):
    """The exit code of a run to its end."""
    return self.start(workdir).wait()

  def said(self):
    """What the last run printed."""
    self.log.seek(0)
    return self.log.read()

  def same(self, workdir):
    """Whether a run ended as the undisturbed one did."""
    return self.end(workdir) == self.expected

  def end(self, workdir):
    """(metrics.jsonl, {name: bytes of the array} of the final checkpoint)."""
    import jax
    from orbax import checkpoint as ocp

    from vit_jax import checkpoint, records
    path = workdir / 'checkpoints' / str(records.saved_steps(workdir)[-1]) / 'state'
    tree = ocp.StandardCheckpointer().restore(path, self._like)  # told what to expect, it needs no damaged description
    self._like = self._like or checkpoint.abstract(tree)
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return ((workdir / 'metrics.jsonl').read_bytes(),
            {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves})

  def interrupted(self, name):
    """A copy of the finished run that has yet to say its last words, and its two newest steps."""
    from vit_jax import records
    shutil.copytree(self.whole, self.folder / name)
    run = records.read_run(self.folder / name)
    run.pop('results')
    records.write_run(self.folder / name, run | {'status': 'running'})
    return self.folder / name, records.saved_steps(self.folder / name)[-2:]


def kills(lab):
  """One run, killed again and again, each time at least a checkpoint further, so around saves too."""
  from vit_jax import records
  workdir, killed = lab.folder / 'kills', 0
  while killed < _KILLS.value:
    process, before = lab.start(workdir), (records.saved_steps(workdir) or [0])[-1]
    while process.poll() is None and (records.saved_steps(workdir) or [0])[-1] <= before:
      time.sleep(0.001)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(lab.rng.uniform(0, 0.3))
    process.kill()
    if process.wait() != -signal.SIGKILL:
      break
    killed += 1
  lab.run(workdir)
  yield f'SIGKILL at a random moment, {killed} over one run', killed, 0 if lab.same(workdir) else killed


def signals(lab):
  """SIGTERM at a random moment after the start: compiling, training, evaluating or saving."""
  lost = 0
  for i in range(_SIGNALS.value):
    workdir = lab.folder / f'signal{i}'
    process = lab.start(workdir)
    while process.poll() is None and not (workdir / 'run.json').exists():
      time.sleep(0.01)
    with contextlib.suppress(subprocess.TimeoutExpired):
      process.wait(lab.rng.uniform(0, 8))
    process.send_signal(signal.SIGTERM)
    code = process.wait()
    again = lab.run(workdir)
    lost += not (code in (0, 42) and again == 0 and lab.same(workdir))
    print(f'SIGTERM {i}: exit code {code}, then {again}', flush=True)
  yield 'SIGTERM at a random moment', _SIGNALS.value, lost


def files(lab):
  """Each file of the newest checkpoint: a flipped bit, cut in half, removed."""
  _, (_, newest) = lab.interrupted('listed')
  inside = lab.folder / 'listed' / 'checkpoints' / str(newest)
  names = sorted(path.relative_to(inside) for path in inside.rglob('*') if path.is_file())
  for what, change in (('a bit flipped', flip), ('cut in half', halve), ('removed', pathlib.Path.unlink)):
    lost = fell_back = 0
    for i, name in enumerate(names):
      workdir, (before, newest) = lab.interrupted(f'{change.__name__}{i}')
      change(workdir / 'checkpoints' / str(newest) / name)
      code = lab.run(workdir)
      noticed = f'the checkpoint of step {newest} cannot be used: ' in lab.said()
      fell_back += noticed
      lost += not (code == 0 and lab.same(workdir) and (not noticed or f'resumed at step {before} ' in lab.said()))
      shutil.rmtree(workdir)
    yield f'each file of the newest checkpoint {what} ({fell_back} fell back, the others harmless)', len(names), lost


def flips(lab):
  """Bits of array data: noticed, or the arrays that are loaded are the right ones."""
  import jax

  from vit_jax import checkpoint
  workdir, (_, newest) = lab.interrupted('flips')
  inside = workdir / 'checkpoints' / str(newest) / 'state'
  data = [path for path in sorted(inside.rglob('*')) if path.is_file() and path.parent.name == 'd']
  sizes = np.array([path.stat().st_size for path in data], float)
  with contextlib.closing(checkpoint.Checkpoints(workdir, read_only=True)) as checkpoints:
    import orbax.checkpoint as ocp
    right = ocp.StandardCheckpointer().restore(inside)
    like = checkpoint.abstract(right)
    caught = lost = 0
    for _ in range(_FLIPS.value):
      path = data[lab.rng.choice(len(data), p=sizes / sizes.sum())]
      kept = path.read_bytes()
      flip(path, int(lab.rng.integers(8 * len(kept))))
      try:
        loaded = checkpoints.restore(newest, like)
        equal = jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), loaded, right)
        lost += not all(jax.tree.leaves(equal))
      except checkpoint.Damaged:
        caught += 1
      path.write_bytes(kept)
  yield f'one bit of array data flipped ({caught} noticed, the others were harmless)', _FLIPS.value, lost


def disk(lab):
  """A small disk that fills up while the run trains, and is then freed."""
  where = lab.folder / 'disk'
  where.mkdir()
  if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=40m', 'tmpfs', where], check=False).returncode:
    print('cannot mount a tmpfs here: no full disk was tried')
    return
  try:
    process = lab.start(where / 'run')
    while process.poll() is None and not (where / 'run' / 'checkpoints' / '25').exists():
      time.sleep(0.01)
    with open(where / 'ballast', 'ab', buffering=0) as ballast:
      while process.poll() is None:
        with contextlib.suppress(OSError):
          ballast.write(bytes(4096))
    said, code = lab.said(), process.returncode
    (where / 'ballast').unlink()
    again = lab.run(where / 'run')
    fine = code == 1 and 'is full: ' in said and 'Traceback' not in said and again == 0 and lab.same(where / 'run')
    yield 'a disk that fills up, and is freed', 1, int(not fine)
  finally:
    subprocess.run(['umount', '-l', where], check=True)


EVERY_ROW = '--config.system.log_every=1'  # of one step, not a mean


def elastic(lab):
  """Stopped and continued on 8, 4 and 1 devices, then 2 processes of 2: each goes on as 8 devices would have."""
  from vit_jax import records
  workdir, lost = lab.folder / 'elastic', 0
  for part, devices in enumerate((8, 4, 1, None)):
    if part:
      copy = lab.folder / f'elastic{part}'
      shutil.copytree(workdir, copy)
    started = [lab.start(workdir, EVERY_ROW, devices=devices)] if devices else lab.start_two(workdir, EVERY_ROW)
    if devices:
      stop_after(started[0], workdir, (part + 1) * _STEPS.value // 4)
    codes = [process.wait() for process in started]
    assert codes == ([42] if devices else [0, 0]), lab.said()
    if part:
      begin, difference = as_before(lab, copy, workdir)
      print(f'elastic: stopped at step {begin}, continued on {devices or "2 processes of 2"}: the next 20 losses '
            f'differ by {difference:.1e} from those on 8 devices', flush=True)
      lost += difference > 1e-5
  ends = []
  for seed in range(3):
    assert lab.start(lab.folder / f'seed{seed}', f'--config.seed={seed}').wait() == 0
    ends.append(records.read_run(lab.folder / f'seed{seed}')['results']['val']['loss'])
  end_loss, deviation = records.read_run(workdir)['results']['val']['loss'], float(np.std(ends, ddof=1))
  print(f'elastic: val loss {end_loss:.4f} at the end, one device {ends[0]:.4f}; deviation of 3 seeds {deviation:.4f}')
  yield 'stopped on 8, 4 and 1 devices, ended on 2 processes of 2', 3, lost + (abs(end_loss - ends[0]) > deviation)


def lost(lab):
  """One of two processes killed, or frozen: the other ends in time, and the next start goes on."""
  for fault in (signal.SIGKILL, signal.SIGSTOP):
    workdir, copy = lab.folder / fault.name, lab.folder / f'{fault.name}-copy'
    started = lab.start_two(workdir, EVERY_ROW)
    wait_for(started[0], workdir, _STEPS.value // 2)
    started[1].send_signal(fault)
    start = time.monotonic()
    code = started[0].wait()
    seconds = time.monotonic() - start
    started[1].kill()
    started[1].wait()
    shutil.copytree(workdir, copy)
    codes = [process.wait() for process in lab.start_two(workdir, EVERY_ROW)]
    begin, difference = as_before(lab, copy, workdir)
    print(f'{fault.name} to one of two: the other ended after {seconds:.1f} s (--heartbeat_s=10) with {code}; '
          f'continued at step {begin}, the next 20 losses differ by {difference:.1e} from 8 devices\'', flush=True)
    fine = seconds < 60 and code in (134, -signal.SIGABRT) and codes == [0, 0] and difference <= 1e-5
    yield f'{fault.name} to one of two processes', 1, int(not fine)


def as_before(lab, copy, workdir):
  """(step, difference): where a stopped run's copy goes on, on 8 devices, and by how much its next 20 losses differ."""
  from vit_jax import records
  begin = records.saved_steps(copy)[-1]
  process = lab.start(copy, EVERY_ROW, devices=8)
  stop_after(process, copy, begin + 20)
  process.wait()
  losses = [[row['loss'] for row in records.read_rows(folder / 'metrics.jsonl')
             if row['split'] == 'train' and begin < row['step'] <= begin + 20] for folder in (workdir, copy)]
  assert len(losses[0]) == len(losses[1]) == 20
  return begin, float(np.max(np.abs(np.subtract(*losses)) / losses[1]))


def stop_after(process, workdir, step):
  wait_for(process, workdir, step)
  process.send_signal(signal.SIGTERM)


def wait_for(process, workdir, step):
  """Until a step is in the log."""
  from vit_jax import records
  while process.poll() is None and not any(
      row['step'] >= step for row in records.read_rows(workdir / 'metrics.jsonl')[-1:]):
    time.sleep(0.02)


def flip(path, bit=None):
  """Flips one bit of a file, that in the middle by default; an empty file gets a byte."""
  content = bytearray(path.read_bytes() or b'\0')
  bit = 4 * len(content) if bit is None else bit
  content[bit // 8] ^= 1 << bit % 8
  path.write_bytes(content)


def halve(path):
  os.truncate(path, path.stat().st_size // 2)


def main(_):
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    lab = Lab(pathlib.Path(folder))
    for name in _ONLY.value:
      for row in globals()[name](lab):
        rows.append(row)
        print('{}: tried {}, lost {}'.format(*row), flush=True)
  print('\n| fault | tried | lost |\n|---|---|---|')
  for row in rows:
    print('| {} | {} | {} |'.format(*row))
  return int(any(lost for *_, lost in rows))


if __name__ == '__main__':
  app.run(main)
