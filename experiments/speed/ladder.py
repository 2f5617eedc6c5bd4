"""The laptop ladder of experiments/fashion_mnist_law as a sweep, and as one process a run.

  python experiments/speed/ladder.py

One process a run: each of the 16 runs from its own start to its own end, one after the other on all cores, as from a
shell. The sweep shares trunks, compiled programs and cores. Its runs must end at the same losses.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

SWEEP = 'experiments/fashion_mnist_law/sweep.py:laptop'


def seconds(*command):
  begins = time.perf_counter()
  subprocess.run([sys.executable, '-m', *command], check=True, capture_output=True)
  return time.perf_counter() - begins


def losses(folder):
  """{config_hash: validation loss}"""
  runs = [json.loads(file.read_text()) for file in pathlib.Path(folder).glob('*/run.json')]
  return {run['config_hash']: run['results']['val']['loss'] for run in runs if run.get('results')}


def main():
  from vit_jax.sweeps import sweep_plan
  runs = sweep_plan.make(SWEEP).runs
  with tempfile.TemporaryDirectory() as folder:
    together = seconds('vit_jax.sweep', f'--sweep={SWEEP}', f'--workdir={folder}/sweep')
    print(f'{len(runs)} runs as a sweep: {together:.0f} s', flush=True)
    alone = [seconds('vit_jax.main', *run.arguments, f'--workdir={folder}/alone/{run.name}') for run in runs]
    swept, whole = losses(f'{folder}/sweep'), losses(f'{folder}/alone')
    assert swept.keys() == whole.keys() and len(whole) == len(runs)
    apart = max(abs(swept[key] / whole[key] - 1) for key in whole)
    print(f'one process a run: {sum(alone):.0f} s; the sweep takes {together / sum(alone):.2f} of that, and its losses '
          f'differ by at most {apart:.1e} of their size')


if __name__ == '__main__':
  main()
