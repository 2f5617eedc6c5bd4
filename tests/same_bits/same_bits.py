"""Proves that a refactor changed no bit: eight small runs of two commits, compared.

  python tests/same_bits/same_bits.py OLD [NEW] [--only=vit,deit] [--keep=DIR]

OLD and NEW are commits. NEW is the working tree where it is left out. The runs (recipes.py, sweeps.py) are a ViT, one
in bfloat16 with Mixup and stochastic depth on eight devices, a DeiT with a teacher, a Swin with EMA and micro-batches,
a ResNet with batch norm on eight devices, a ConvNeXt, a sweep of branches and one of packed runs. Compared are the
config hashes, metrics.jsonl byte for byte, and every array of the last checkpoint by its SHA-256. Both commits run with
the packages of this Python. Exit codes: 0 all equal, 1 something differs or failed; the first differences are named.
"""

import argparse
import concurrent.futures
import hashlib
import itertools
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
EIGHT = ('vit_bfloat16', 'resnet')  # on as many fake devices
SWEEPS = ('branch', 'packed')
RUNS = ('vit', 'vit_bfloat16', 'deit', 'swin', 'resnet', 'convnext', *SWEEPS)
AFTER = {'deit': 'vit'}  # its teacher
MOST_NAMED = 5


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('old')
  parser.add_argument('new', nargs='?')
  parser.add_argument('--only', help='a list of ' + ', '.join(RUNS))
  parser.add_argument('--keep', help='a folder for the runs; by default a temporary one')
  args = parser.parse_args()
  os.environ['JAX_PLATFORMS'] = 'cpu'
  logging.disable(logging.WARNING)  # orbax's: the arrays are read without their run
  names = args.only.split(',') if args.only else list(RUNS)
  if unknown := set(names) - set(RUNS):
    parser.error(f'--only: {", ".join(sorted(unknown))}: expected some of {", ".join(RUNS)}')
  with tempfile.TemporaryDirectory() as scratch:
    trees = {'old': checkout(args.old, f'{scratch}/old'), 'new': checkout(args.new, f'{scratch}/new')}
    folder = pathlib.Path(args.keep or f'{scratch}/runs')
    try:
      with concurrent.futures.ThreadPoolExecutor(2) as pool:
        ends = dict(zip(trees, pool.map(lambda side: run_all(trees[side], folder / side, names), trees)))
    finally:
      for tree in filter(lambda tree: tree != ROOT, trees.values()):
        subprocess.run(['git', '-C', ROOT, 'worktree', 'remove', '--force', tree], check=True)
  return report(names, ends)


def checkout(commit: str | None, folder: str) -> pathlib.Path:
  """A tree of the commit; the working tree for None."""
  if commit is None:
    return ROOT
  subprocess.run(['git', '-C', ROOT, 'worktree', 'add', '--quiet', '--detach', folder, commit], check=True)
  return pathlib.Path(folder)


def run_all(tree: pathlib.Path, folder: pathlib.Path, names: list[str]) -> dict[str, dict[str, str]]:
  """{name of a run: what it left}, of the code in `tree`."""
  folder.mkdir(parents=True, exist_ok=True)
  wanted = [name for name in RUNS if name in names or name in [AFTER.get(other) for other in names]]
  return {name: run(tree, folder, name) for name in wanted}


def run(tree: pathlib.Path, folder: pathlib.Path, name: str) -> dict[str, str]:
  """Starts one run or sweep; {what: its value} of all that it left, or {'failed': its output}."""
  program = ['vit_jax.sweep', f'--sweep={HERE}/sweeps.py:{name}', '--jobs=1'] if name in SWEEPS else [
      'vit_jax.main', f'--config={HERE}/recipes.py:{name}']
  env = os.environ | {'PYTHONPATH': str(tree), 'PYTHONSAFEPATH': '1',
                      'JAX_NUM_CPU_DEVICES': '8' if name in EIGHT else '1'}
  done = subprocess.run([sys.executable, '-m', *program, f'--workdir={name}'], cwd=folder, env=env, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  if done.returncode:
    return {'failed': done.stdout[-2000:]}
  runs = [path.parent for path in sorted((folder / name).rglob('run.json'))]
  left = (end(path, '' if path == folder / name else path.name.rpartition('-')[2]) for path in runs)
  return dict(itertools.chain.from_iterable(part.items() for part in left))


def end(workdir: pathlib.Path, label: str) -> dict[str, str]:
  """A finished run's hash, log and arrays, as text. Sweeps name folders as they like: `label` is the run's hash."""
  import numpy as np
  from jax.tree_util import keystr, tree_leaves_with_path, tree_map
  from orbax import checkpoint as ocp
  record = json.loads((workdir / 'run.json').read_text())
  steps = [int(path.name) for path in (workdir / 'checkpoints').iterdir() if path.name.isdigit()]
  state, reader = (workdir / 'checkpoints' / str(max(steps)) / 'state').absolute(), ocp.PyTreeCheckpointer()
  as_numpy = tree_map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(state).item_metadata.tree)
  tree = reader.restore(state, restore_args=as_numpy)  # as arrays of the host, whatever devices they were saved from
  what = {'config_hash': record['config_hash'], 'metrics.jsonl': (workdir / 'metrics.jsonl').read_text()}
  for path, leaf in tree_leaves_with_path(tree):
    what[f'array {keystr(path)}'] = hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
  return {f'{label} {name}'.strip(): value for name, value in what.items()}


def report(names: list[str], ends: dict[str, dict[str, dict[str, str]]]) -> int:
  """Prints a line for each run, and what differs; the exit code."""
  wrong = 0
  for name in names:
    old, new = ends['old'][name], ends['new'][name]
    differing = [key for key in (old | new) if old.get(key) != new.get(key)]
    failed = 'failed' in old | new
    print(f'{name:<13} {"FAILED" if failed else f"{len(differing)} differ" if differing else f"{len(old)} equal"}')
    wrong += bool(differing) or failed
    for key in differing[:MOST_NAMED]:
      print(f'  {key}\n    old: {_shown(old.get(key), new.get(key))}\n    new: {_shown(new.get(key), old.get(key))}')
    if len(differing) > MOST_NAMED:
      print(f'  and {len(differing) - MOST_NAMED} more')
  return 1 if wrong else 0


def _shown(text, other):
  """Of a log the first line in which it differs."""
  if text is None:
    return 'absent'
  if '\n' not in text or other is None:
    return text
  lines = itertools.zip_longest(text.split('\n'), other.split('\n'))
  return next(ours for ours, theirs in lines if ours != theirs)


if __name__ == '__main__':
  sys.exit(main())
