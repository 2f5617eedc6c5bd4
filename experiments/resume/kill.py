"""Kills a run at a random step, starts it again, and compares its end with an undisturbed run's, byte for byte.

  python experiments/resume/kill.py --times=10
  python experiments/resume/kill.py --times=1 --platform=cuda --deterministic       on a GPU
"""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

_TIMES = flags.DEFINE_integer('times', 10, 'How many runs are killed.', 1)
_CONFIG = flags.DEFINE_string('config', 'configs/quickstart.py', 'The recipe.')
_STEPS = flags.DEFINE_integer('steps', 300, 'Its length.')
_PLATFORM = flags.DEFINE_string('platform', 'cpu', 'JAX\'s name of the devices to train on.')
_DETERMINISTIC = flags.DEFINE_bool('deterministic', False, 'Set system.deterministic, which GPUs need.')


def command(workdir):
  return [sys.executable, '-m', 'vit_jax.main', f'--config={_CONFIG.value}', '--config.train.epochs=0',
          f'--config.train.steps={_STEPS.value}', '--config.system.log_every=5', f'--workdir={workdir}',
          f'--config.system.deterministic={_DETERMINISTIC.value}']


def killed_at(workdir, step):
  """Starts the run and kills it once it has printed that step; whether it was alive until then."""
  process = subprocess.Popen(command(workdir), stdout=subprocess.PIPE, text=True, env=environment())
  for line in process.stdout:
    if line.startswith('step ') and 'images/s' in line and int(line.split()[1].split('/')[0]) >= step:
      process.send_signal(signal.SIGKILL)
      break
  process.stdout.close()
  return process.wait() == -signal.SIGKILL


def end(workdir):
  """(metrics.jsonl, {name: array bytes} of the final checkpoint)."""
  import jax
  from orbax import checkpoint as ocp

  from vit_jax import checkpoint, records
  step = checkpoint.Checkpoints(workdir).latest()
  tree = ocp.StandardCheckpointer().restore(workdir / records.CHECKPOINTS / str(step) / 'state')
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  arrays = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
  return (workdir / 'metrics.jsonl').read_bytes(), arrays


def environment():
  return os.environ | {'JAX_PLATFORMS': _PLATFORM.value}


def main(_):
  import jax
  jax.config.update('jax_platforms', 'cpu')  # here arrays are compared alone
  rng, equal = np.random.default_rng(0), 0
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    train = lambda workdir: subprocess.run(command(workdir), check=True, stdout=subprocess.DEVNULL, env=environment())
    begins = time.perf_counter()
    train(folder / 'undisturbed')
    print(f'undisturbed: {time.perf_counter() - begins:.1f} s on {_PLATFORM.value}', flush=True)
    expected = end(folder / 'undisturbed')
    for i in range(_TIMES.value):
      step, workdir = int(rng.integers(5, _STEPS.value)), folder / str(i)
      killed = killed_at(workdir, step)
      train(workdir)
      metrics, arrays = end(workdir)
      same = (metrics == expected[0], arrays == expected[1])
      equal += killed and all(same)
      print(f'run {i}: killed after step {step} ({"alive until then" if killed else "too late"}); metrics.jsonl equal: '
            f'{same[0]}, {len(arrays)} arrays equal: {same[1]}', flush=True)
  print(f'{equal} of {_TIMES.value} killed runs ended byte-equal to the undisturbed one')
  return 0 if equal == _TIMES.value else 1


if __name__ == '__main__':
  app.run(main)
