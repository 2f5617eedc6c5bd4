"""Runs in bfloat16 beside those in float32 of the same seeds: python experiments/bfloat16/table.py RUNS

For each metric: both means, the difference of pairs with its 95% interval (Student's t), the p-value that it is 0, and
the standard deviation over seeds in float32.
"""

import pathlib
import sys

import numpy as np
from scipy import stats

from vit_jax import records

METRICS = 'loss', 'error'


def main(place):
  ends = {}  # {(split, metric): {dtype: {seed: value}}}
  for path in sorted(pathlib.Path(place).glob(f'*/{records.RUN}')):
    config, rows = records.read_run(path.parent)['config'], records.read_rows(path.parent / records.METRICS)
    for split in 'val', 'test':
      last = next(row for row in rows[::-1] if row['split'] == split)
      for metric in METRICS:
        ends.setdefault((split, metric), {}).setdefault(config['model']['dtype'], {})[config['seed']] = last[metric]
  print('metric      seeds  float32  bfloat16  difference (95%)              p     sd over seeds')
  for (split, metric), by in ends.items():
    seeds = sorted(by['float32'])
    if seeds != sorted(by['bfloat16']):
      sys.exit(f'{place}: seeds {seeds} in float32 and {sorted(by["bfloat16"])} in bfloat16; expected the same')
    wide, narrow = (np.array([by[dtype][seed] for seed in seeds]) for dtype in ('float32', 'bfloat16'))
    test = stats.ttest_rel(narrow, wide)
    low, high = test.confidence_interval()
    print(f'{split + "/" + metric:<11} {len(seeds):<6} {wide.mean():.5f}  {narrow.mean():.5f}   '
          f'{(narrow - wide).mean():+.5f} ({low:+.5f} to {high:+.5f})  {test.pvalue:.2f}  {wide.std(ddof=1):.5f}')


if __name__ == '__main__':
  main(*sys.argv[1:])
