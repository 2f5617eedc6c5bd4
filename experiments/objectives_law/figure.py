"""The errors of all runs against FLOPs, with the laws that were registered, and a table.

  python experiments/objectives_law/figure.py RUNS HELD_OUT OUT     writes OUT/errors.csv and OUT/errors.png
"""

import csv
import json
import pathlib
import sys

import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from vit_jax import records
from vit_jax.drawing import figure as figure_lib

COLOURS = {'classify': '#d55e00', 'reconstruct': '#cc79a7', 'contrast': '#009e73', 'caption': '#0072b2'}
MARKS = {24: 'o', 48: 's'}
METRICS = ('val_probe_error', 'test_probe_error', 'val_zero_shot_error', 'test_zero_shot_error')
SMALL = 24


def rows_of(place, held_out):
  """A row for each finished run of a folder."""
  table = pathlib.Path(place) / 'zero_shot.csv'
  named = {row['run']: row for row in csv.DictReader(table.open())} if table.exists() else {}
  for path in sorted(pathlib.Path(place).glob(f'*/{records.RUN}')):
    run = records.read_run(path.parent)
    if run['status'] == 'finished':
      last = {row['split']: row for row in records.read_rows(path.parent / records.METRICS)}
      row = {'run': path.parent.name, 'objective': run['config'].get('objective', 'classify'), 'held_out': held_out,
             'width': run['config']['model']['width'], 'flops': last['test']['flops']}
      row |= {f'{split}_probe_error': last[split]['probe/error'] for split in ('val', 'test')}
      yield row | {name: float(named[row['run']][name]) for name in METRICS[2:] if row['run'] in named}


def draw(rows, registered, path):
  """Two panels a split, with the laws of the smaller model and their predictions for a new run as bars.

  Circles are the smaller model, squares the larger; filled points were fitted, hollow ones held out.
  """
  with figure_lib.style():
    figure = Figure(figsize=(10, 7), layout='constrained')
    for axes, metric in zip(figure.subplots(2, 2, sharex=True).T.flat, METRICS):
      law = json.loads((pathlib.Path(registered) / f'{metric}.json').read_text())
      for i, (objective, colour) in enumerate(COLOURS.items()):
        for row in rows:
          if row['objective'] == objective and metric in row:
            axes.plot(row['flops'], row[metric], MARKS[row['width']], color=colour, mew=1.4,
                      mfc='white' if row['held_out'] else colour)
        if objective in law['laws']:
          c = law['laws'][objective]['coefficients']
          x = np.geomspace(1e11, 3e12, 50)
          axes.plot(x, c['A'] * SMALL**c['a'] * x**c['b'], color=colour, lw=1.2, label=objective)
          predicted = next(p for p in law['predictions'] if p['group'] == objective)
          axes.plot([3.4e12 * 1.08**i] * 2, predicted['ci95_run'], color=colour, lw=3, alpha=0.5)
      axes.set(xscale='log', yscale='log', xlabel='training FLOPs',
               title=metric.replace('zero_shot', 'zero-shot').replace('_', ' '))
      axes.set_yticks([0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1], minor=False)
      axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, decimals=0))
      axes.yaxis.set_minor_locator(ticker.NullLocator())
      axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def main(runs, held_out, out):
  rows = [*rows_of(runs, False), *rows_of(held_out, True)]
  out = pathlib.Path(out)
  with (out / 'errors.csv').open('w', newline='') as file:
    table = csv.DictWriter(file, [*rows[0], *METRICS[2:]] if METRICS[2] not in rows[0] else rows[0])
    table.writeheader()
    table.writerows(rows)
  draw(rows, pathlib.Path(runs) / 'registered', out / 'errors.png')


if __name__ == '__main__':
  main(*sys.argv[1:])
