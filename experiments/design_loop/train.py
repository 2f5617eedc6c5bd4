"""Does `law --design`, in rounds, end with a narrower interval than a grid of equal FLOPs? With training.

  python experiments/design_loop/train.py --workdir=runs/design_loop --repeats=0,1,2,3,4

Each repeat trains two sets of runs of experiments/fashion_mnist_law with seeds of their own. The grid is four widths x
five lengths x two seeds. The loop starts from nothing and has the grid's FLOPs, in thirds: the first is designed from
assumed coefficients, the others from the law of the runs so far. Both laws predict the largest model at the longest
length of fashion_mnist_law, one run of which costs more than the budget; its two seeds were trained there. A repeat
takes 20 CPU minutes twice. The command continues where it was stopped, prints a log, and writes the points of all laws
to WORKDIR/runs.csv.
"""

import argparse
import csv
import os
import pathlib
import runpy
import subprocess
import sys

import numpy as np
import replay

os.environ['JAX_PLATFORMS'] = 'cpu'

from vit_jax import recipe, schema  # noqa: E402
from vit_jax.scaling import analysis, design, estimate, points  # noqa: E402
from vit_jax.sweeps import ladder, next_run, next_sweep  # noqa: E402
from vit_jax.training import config as run_config  # noqa: E402

SWEEP = 'experiments/fashion_mnist_law/sweep.py'
FAMILY = runpy.run_path(SWEEP)  # its recipe, shapes and learning rates
TARGET = {'params': 343018.0, 'examples': 512000.0}  # width 96, 8,000 steps
BUDGET = 1.251e13  # FLOPs of the grid
WITHIN = 'params=1.1e4..3.4e5,examples=6.4e4..5.12e5'


def train(spec: str, workdir: pathlib.Path) -> None:
  """Trains the runs of a sweep that are not there yet."""
  workdir.mkdir(parents=True, exist_ok=True)
  with open(workdir.with_suffix('.log'), 'ab') as log:
    subprocess.run([sys.executable, '-m', 'vit_jax.sweep', f'--sweep={spec}', f'--workdir={workdir}'], check=True,
                   stdout=log, stderr=log)


def law(workdir: pathlib.Path) -> analysis.Analysis:
  return analysis.analyse(points.load([workdir]), analysis.Settings('chinchilla'))


def trunks(loaded: points.Points) -> dict:
  """{(params, seed): lengths} of the runs."""
  found: dict = {}
  for params, examples, row in zip(loaded.columns['params'], loaded.columns['examples'], loaded.rows):
    found.setdefault((params, row['seed']), set()).add(examples)
  return found


def spent(loaded: points.Points) -> float:
  """The FLOPs of the runs; branches share the stable part of their trunk."""
  columns = loaded.columns
  return replay.paid(trunks(loaded), dict(zip(columns['params'], columns['flops'] / columns['examples'])))


def origin(seed: int) -> next_sweep.Origin:
  """The shapes and learning rates of fashion_mnist_law."""
  base = schema.plain(run_config.cast(recipe.load_recipe(FAMILY['RECIPE'])))
  shapes = [{name.removeprefix('model.'): value for name, value in FAMILY['shape'](width).items()
             if name.startswith('model.')} for width in (16, 32)]
  return next_sweep.Origin(base, next_run.Sizes(base, 'params'), ladder.read([base['model'] | s for s in shapes]),
                           lambda width, _: FAMILY['shape'](width)['optimizer.learning_rate'], seed, replay.COOLDOWN)


def loop(workdir: pathlib.Path, repeat: int) -> None:
  """Designs, trains and fits in rounds."""
  sizes, lengths = design.ranges(WITHIN, (0.0, 0.0), (0.0, 0.0))
  for k in range(replay.ROUNDS):
    file, made = workdir.with_name(f'{workdir.name}_{k}.py'), origin(1000 * (repeat + 1) + 100 * k)
    if not file.exists():
      known, left = design.assume(replay.ASSUMED, estimate.form_class('chinchilla'), sizes, lengths), BUDGET
      if k:
        fitted = law(workdir)
        known = design.of_fit(fitted.fit, fitted.points.take(fitted.fitted).clusters)
        left = BUDGET - spent(fitted.points)
      found = design.choose(known, TARGET, made.real(sizes), lengths, made.cost, left / (replay.ROUNDS - k),
                            made.cooldown)
      print(f'repeat {repeat}, round {k}: {found.describe()}', flush=True)
      file.parent.mkdir(parents=True, exist_ok=True)
      next_sweep.write(found, made, str(file), f'train.py --repeats={repeat}')
    train(str(file), workdir)


def write_table(path: pathlib.Path, laws: dict[str, analysis.Analysis]) -> None:
  """Writes the points of several laws, with the name of each as `sweep`; branches of a trunk are one lineage."""
  with path.open('w', newline='') as file:
    out = csv.writer(file, lineterminator='\n')
    out.writerow(('sweep', 'run', 'lineage', 'params', 'examples', 'flops', 'seed', 'loss'))
    for name, fitted in laws.items():
      known = fitted.points
      for i, row in enumerate(known.rows):
        numbers = (f'{known.columns[column][i]:.0f}' for column in ('params', 'examples', 'flops'))
        out.writerow((name, known.runs[i], f'{name} {known.clusters[i]}', *numbers, row['seed'], f'{known.y[i]:.6f}'))


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--workdir', type=pathlib.Path, default=pathlib.Path('runs/design_loop'))
  parser.add_argument('--repeats', default='0,1,2,3,4')
  arguments = parser.parse_args()
  known = points.load([replay.RUNS])
  largest = [known.columns[name] == value for name, value in TARGET.items()]
  measured, truth, rows, laws = float(np.mean(known.y[largest[0] & largest[1]])), replay.truth_of(known), [], {}
  print(f'measured: {measured:.4f}', flush=True)
  for repeat in map(int, arguments.repeats.split(',')):
    of = {name: arguments.workdir / f'{name}{repeat}' for name in ('grid', 'loop')}
    loop(of['loop'], repeat)
    train(f'{SWEEP}:grid{repeat}', of['grid'])
    found = {name: law(workdir) for name, workdir in of.items()}
    laws |= {f'{name}{repeat}': fitted for name, fitted in found.items()}
    both = [replay.describe(name, fitted, trunks(fitted.points), spent(fitted.points), TARGET, measured, truth)
            for name, fitted in found.items()]
    print(f'repeat {repeat}', *(words for words, _ in both), sep='\n', flush=True)
    rows.append([figures for _, figures in both])
  write_table(arguments.workdir / 'runs.csv', laws)
  replay.compare(rows)


if __name__ == '__main__':
  main()
