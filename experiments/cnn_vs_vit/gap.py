"""Test errors of each kind at each subset, and differences that pair runs of one seed, with 95% intervals.

  python experiments/cnn_vs_vit/gap.py
"""

import collections
import json
import pathlib
import statistics

from scipy import stats

RUNS = pathlib.Path('runs/cnn_vs_vit')
KINDS = ('cnn', 'hybrid', 'swin', 'vit', 'deit')
PAIRS = (('deit', 'vit'), ('hybrid', 'vit'), ('swin', 'vit'), ('vit', 'cnn'), ('hybrid', 'cnn'))


def main():
  errors = collections.defaultdict(dict)  # {(kind, images): {seed: test error}}
  for kind in KINDS:
    for file in (RUNS / kind).glob('*/run.json'):
      run = json.loads(file.read_text())
      if run['status'] == 'finished':
        key = kind, run['config']['data']['unique_examples']
        errors[key][run['config']['seed']] = run['results']['test']['error']
  subsets = sorted({images for _, images in errors})
  print('test error, % (mean of the seeds, standard deviation)')
  _table(subsets, KINDS, lambda kind, images: _mean(list(errors[kind, images].values()), statistics.stdev))
  print('\ndifference in points, of runs of one seed (mean, half of its 95% interval: t)')
  pairs = {f'{a} - {b}': (a, b) for a, b in PAIRS}

  def difference(name, images):
    ours, others = (errors[kind, images] for kind in pairs[name])
    return _mean([ours[seed] - others[seed] for seed in sorted(ours.keys() & others.keys())], _half)
  _table(subsets, pairs, difference)


def _half(values):
  """Half of the 95% interval of the mean."""
  return stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5


def _mean(values, spread):
  return f'{100 * statistics.mean(values):.2f} +- {100 * spread(values):.2f}' if len(values) > 1 else '-'


def _table(subsets, names, cell):
  print(f'{"images":16}', *(f'{images:>16,}' for images in subsets))
  for name in names:
    print(f'{name:16}', *(f'{cell(name, images):>16}' for images in subsets))


if __name__ == '__main__':
  main()
