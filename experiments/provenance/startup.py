"""What digests of code and data add to a start: pairs of starts of two checkouts, in turn on the same cores.

  python experiments/provenance/startup.py --before=../before

where `git worktree add ../before COMMIT` has made a checkout of the older code. A start is measured until the header is
printed, when nothing has been compiled: wall-clock and CPU seconds.
"""

import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

_BEFORE = flags.DEFINE_string('before', None, 'A checkout of the older code.')
_PAIRS = flags.DEFINE_integer('pairs', 9, 'How many pairs of starts.', 1)
_CONFIG = flags.DEFINE_string('config', 'configs/quickstart.py', 'The recipe.')
_LAST_LINE = 'estimate'  # of the header


def start(checkout, workdir):
  """(wall-clock, CPU) seconds, with children, from the start of the process to the last line of its header."""
  command = [sys.executable, '-u', '-m', 'vit_jax.main', f'--config={_CONFIG.value}', f'--workdir={workdir}']
  environment = os.environ | {'PYTHONPATH': str(checkout), 'JAX_PLATFORMS': 'cpu'}
  begun = time.perf_counter()
  process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=checkout, env=environment)
  if not any(line.startswith(_LAST_LINE) for line in process.stdout):
    raise SystemExit(f'{checkout}: the run ended with {process.wait()} before its header')
  wall = time.perf_counter() - begun
  fields = pathlib.Path(f'/proc/{process.pid}/stat').read_text().rpartition(')')[2].split()
  process.kill()
  process.stdout.close()
  process.wait()
  return wall, sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')


def processor():
  names = [line.partition(':')[2].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')]
  return f'{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores'


def main(_):
  if not _BEFORE.value:
    raise app.UsageError('--before is missing: a checkout of the older code')
  now, before = pathlib.Path(__file__).parents[2], pathlib.Path(_BEFORE.value).resolve()
  print(f'{processor()}; Python {platform.python_version()}')
  pairs = []
  with tempfile.TemporaryDirectory() as folder:
    for checkout in (before, now):  # files are compiled and read once
      start(checkout, f'{folder}/first{checkout == now}')
    for i in range(_PAIRS.value):
      order = [before, now] if i % 2 else [now, before]
      took = {checkout: start(checkout, f'{folder}/{i}{checkout == now}') for checkout in order}
      pairs.append((took[before], took[now]))
      print(f'pair {i}: ' + ', '.join(f'{name} {a:.2f} s before, {b:.2f} s now' for name, a, b in zip(
          ('wall', 'CPU'), *pairs[-1], strict=True)), flush=True)
  for k, name in enumerate(('wall', 'CPU')):
    more = [b[k] - a[k] for a, b in pairs]
    ratio = statistics.median(b[k] / a[k] for a, b in pairs)
    print(f'{name}: median of {len(pairs)} paired differences {statistics.median(more):+.2f} s ({min(more):+.2f} to '
          f'{max(more):+.2f}), of ratios {ratio:.3f}; median start {statistics.median(b[k] for _, b in pairs):.2f} s')


if __name__ == '__main__':
  app.run(main)
