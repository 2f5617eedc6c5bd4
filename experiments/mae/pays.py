"""At how many labels training from scratch reaches the error of pre-training, at the same FLOPs, with an interval.

  python experiments/mae/pays.py runs/mae/points.csv 1.2e12

The laws error = e + b labels^c of both methods cross there. Each of 1,000 pairs of refits (of resampled runs) gives a
crossing; where a pair has none between 100 and 10,000 labels, the method that is better at 10,000 is noted.
"""

import csv
import sys

import numpy as np

import vit_jax

LABELS = np.geomspace(100, 10_000, 2000)
METHODS = 'from scratch', 'pre-trained'


def crossing(scratch, pretrained):
  """The number of labels at which curves [n] over LABELS cross, from pre-trained below to from scratch below; or the
  end of LABELS at which they would."""
  better = np.flatnonzero(scratch < pretrained)
  return LABELS[better[0]] if len(better) else np.inf


def main(file, budget):
  with open(file) as lines:
    rows = [row for row in csv.DictReader(lines) if float(row['budget']) == float(budget)]
  at = {'x': LABELS}
  laws = [vit_jax.fit([row for row in rows if row['method'] == method], 'power_offset', 'labels',
                      metric='error').analysis for method in METHODS]
  middle = crossing(*(law.fit.predict(at) for law in laws))
  refits = [law.boot.predictions(at) for law in laws]
  each = np.array([crossing(a, b) for a, b in zip(*refits)])
  low, high = np.quantile(each, [0.025, 0.975], method='nearest')
  print(f'budget {float(budget):.2g}: the curves cross at {middle:,.0f} labels, 95% interval {low:,.0f} to {high:,.0f} '
        f'({len(each):,} pairs of refits; {np.mean(each == LABELS[0]):.1%} with none above {LABELS[0]:,.0f}, '
        f'{np.mean(np.isinf(each)):.1%} with none below {LABELS[-1]:,.0f})')


if __name__ == '__main__':
  main(*sys.argv[1:])
