"""Test errors of both methods at each number of labels, and differences that pair runs of one seed.

  python experiments/mae/table.py runs/mae

Writes FOLDER/points.csv, a row for each method, budget, number of labels and seed: of the runs that the budget allows,
that with the lowest validation error. Test errors choose nothing. FLOPs count pre-training and what follows it.
"""

import collections
import csv
import json
import pathlib
import statistics
import sys

from scipy import stats

COLUMNS = ('run', 'method', 'budget', 'labels', 'seed', 'flops', 'steps', 'val_error', 'error')
METHODS = {'scratch': 'from scratch', 'finetuned': 'pre-trained'}


def read(folder):
  """{run name: (config, results, training FLOPs)} of the finished runs in a folder."""
  found = {}
  for file in sorted(folder.glob('*/run.json')):
    run = json.loads(file.read_text())
    if run['status'] == 'finished':
      last = json.loads((file.parent / 'metrics.jsonl').read_text().splitlines()[-1])
      found[file.parent.name] = run['config'], run['results'], last['flops']
  return found


def candidates(folder):
  """(method, budget, row) of every run with labels. One from scratch is within any budget that is large enough."""
  before = {name: flops for name, (_, _, flops) in read(folder / 'pretrained').items()}
  budgets = sorted({float(name.partition('_')[0].removeprefix('flops')) for name in before})
  for method in METHODS:
    for name, (config, results, flops) in read(folder / method).items():
      own = float(name.partition('_')[0].removeprefix('of')) if method == 'finetuned' else None
      given = 0 if own is None else before[f'flops{own:.2g}_seed{config["seed"]}']
      row = {'run': f'{method}/{name}', 'method': METHODS[method], 'labels': config['data']['unique_examples'],
             'seed': config['seed'], 'flops': given + flops, 'steps': results['steps'],
             'val_error': results['val']['error'], 'error': results['test']['error']}
      for budget in budgets:
        if budget == own or own is None and flops <= 1.01 * budget:
          yield row | {'budget': budget}


def best(rows):
  """The row of each method, budget, number of labels and seed with the lowest validation error."""
  chosen = {}
  for row in rows:
    key = row['budget'], row['method'], row['labels'], row['seed']
    if key not in chosen or (row['val_error'], row['flops']) < (chosen[key]['val_error'], chosen[key]['flops']):
      chosen[key] = row
  return [chosen[key] for key in sorted(chosen)]


def both(rows):
  """The rows of a budget and number of labels that both methods have, with the same seeds."""
  seeds = collections.defaultdict(set)
  for row in rows:
    seeds[row['budget'], row['labels'], row['method']].add(row['seed'])
  same = lambda row: len({frozenset(seeds[row['budget'], row['labels'], method]) for method in METHODS.values()}) == 1
  return list(filter(same, rows))


def main(folder):
  folder = pathlib.Path(folder)
  rows = both(best(candidates(folder)))
  with open(folder / 'points.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, COLUMNS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
  for budget in sorted({row['budget'] for row in rows}):
    errors = {(row['method'], row['labels'], row['seed']): row for row in rows if row['budget'] == budget}
    labels = sorted({n for _, n, _ in errors})
    print(f'\nbudget {budget:.2g} FLOPs: test error in %, mean and standard deviation of the seeds; best length by val')
    print(f'{"labels":22}', *(f'{n:>15,}' for n in labels))
    for method in METHODS.values():
      each = [[row['error'] for (m, k, _), row in errors.items() if (m, k) == (method, n)] for n in labels]
      print(f'{method:22}', *(f'{_mean(values, statistics.stdev):>15}' for values in each))
    paired = [[errors[METHODS['scratch'], n, seed]['error'] - row['error'] for (m, k, seed), row in errors.items()
               if (m, k) == (METHODS['finetuned'], n) and (METHODS['scratch'], n, seed) in errors] for n in labels]
    print(f'{"difference, 95% (t)":22}', *(f'{_mean(values, _half):>15}' for values in paired))
    print(f'{"p, of no difference":22}', *(f'{_p(values):>15}' for values in paired))
    for method in METHODS.values():
      steps = [sorted(row['steps'] for (m, k, _), row in errors.items() if (m, k) == (method, n)) for n in labels]
      print(f'{"steps, " + method:22}', *(f'{"/".join(map(str, values)):>15}' for values in steps))


def _half(values):
  """Half of the 95% interval of the mean."""
  return stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5


def _p(values):
  return f'{stats.ttest_1samp(values, 0).pvalue:.2g}' if len(values) > 1 else '-'


def _mean(values, spread):
  return f'{100 * statistics.mean(values):.2f} +- {100 * spread(values):.2f}' if len(values) > 1 else '-'


if __name__ == '__main__':
  main(*sys.argv[1:])
