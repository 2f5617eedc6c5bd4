"""Validation loss against learning rate, a line a size, the two parametrisations side by side.

  python experiments/lr_transfer/plot.py --part=width --runs=runs/lr_transfer_width       from the sweep's run folders
  python experiments/lr_transfer/plot.py --part=width       from results/width.jsonl, which that made

Prints a table. Writes PART.jsonl (one line per run), PART.log (the table), PART.png and PART.svg to --out.
"""

import argparse
import json
import math
import pathlib

import matplotlib
import numpy as np

from vit_jax import records

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # noqa: E402

RESULTS = pathlib.Path(__file__).parent / 'results'
TITLES = {'standard': 'standard parametrisation', 'mup': 'muP, base: the smallest'}


def read(folder, part):
  """One row a run of the sweep; the loss is None where it was not a number before the end."""
  rows = []
  for path in sorted(folder.glob('*/run.json')):
    run = records.read_run(path.parent)
    config, events = run['config'], records.read_rows(path.parent / records.EVENTS)
    if run['status'] != 'finished' and not any(event['event'] == 'failed' for event in events):
      continue  # not at its end yet
    results = run.get('results')
    rows.append({'parametrisation': config['parametrisation']['name'], part: config['model'][part],
                 'learning_rate': config['optimizer']['learning_rate'], 'params': run['params'],
                 'loss': results['val']['loss'] if results else None, 'config_hash': run['config_hash']})
  return sorted(rows, key=lambda row: (row['parametrisation'], row[part], row['learning_rate']))


def curves(rows, part):
  """{parametrisation: {size: {learning rate: loss}}}; the base is the same run in both."""
  out = {name: {} for name in TITLES}
  for row in rows:
    out[row['parametrisation']].setdefault(row[part], {})[row['learning_rate']] = row['loss'] or math.inf
  base = min(out['standard'])
  out['mup'] = {base: out['standard'][base], **out['mup']}
  return out


def optimum(curve):
  """(best learning rate of the grid, minimum of the parabola in log rate through it and its neighbours, loss).

  The parabola's minimum is None where the best lies at the grid's edge, or beside a run that diverged.
  """
  rates, losses = np.array(sorted(curve.items())).T
  i = int(np.argmin(losses))
  if not 0 < i < len(rates) - 1 or not np.isfinite(losses[i - 1:i + 2]).all():
    return rates[i], None, losses[i]
  a, b, _ = np.polyfit(np.log(rates[i - 1:i + 2]), losses[i - 1:i + 2], 2)
  return rates[i], math.exp(-b / (2 * a)), losses[i]


def table(by_name, part):
  """What is printed: best learning rates, and what the base's best costs at each size."""
  heads = ('best rate', 'parabola', 'loss', "at the base's best")
  lines = ['{:16} {:>6} {:>10} {:>10} {:>8} {:>19}'.format('parametrisation', part, *heads)]
  for name, by_size in by_name.items():
    base_rate = optimum(by_size[min(by_size)])[0]
    for size, curve in sorted(by_size.items()):
      rate, fitted, loss = optimum(curve)
      shown = 'at an edge' if fitted is None else f'{fitted:.5f}'
      there = curve.get(base_rate)
      cost = 'not run' if there is None else 'diverged' if math.isinf(there) else f'{there:.4f} (+{there - loss:.4f})'
      lines.append(f'{name:16} {size:6} {rate:10.5f} {shown:>10} {loss:8.4f} {cost:>19}')
  return '\n'.join(lines)


def draw(by_name, part, path):
  figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout='constrained')
  for panel, (name, by_size) in zip(panels, by_name.items(), strict=True):
    colours = plt.cm.viridis(np.linspace(0, 0.85, len(by_size)))  # ordered, as the sizes are
    for colour, (size, curve) in zip(colours, sorted(by_size.items()), strict=True):
      rates, losses = np.array(sorted(curve.items())).T
      panel.plot(rates, np.where(np.isfinite(losses), losses, np.nan), '.-', color=colour, label=f'{part} {size}')
      rate, _, loss = optimum(curve)
      panel.plot(rate, loss, 'o', color=colour, markersize=9, markerfacecolor='none', markeredgewidth=1.8)
    panel.set(xscale='log', xlabel='learning rate', title=TITLES[name])
  finite = [loss for by_size in by_name.values() for curve in by_size.values() for loss in curve.values()
            if math.isfinite(loss)]
  panels[0].set(ylabel='validation loss', ylim=(min(finite) - 0.02, min(finite) + 0.5))
  panels[1].legend(frameon=False)
  for suffix in ('png', 'svg'):
    figure.savefig(path.with_suffix(f'.{suffix}'), dpi=150)


def main():
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--part', choices=('width', 'depth'), default='width')
  parser.add_argument('--runs', type=pathlib.Path, help="the sweep's --workdir")
  parser.add_argument('--out', type=pathlib.Path, default=pathlib.Path('runs/lr_transfer'))
  args = parser.parse_args()
  args.out.mkdir(parents=True, exist_ok=True)
  log = args.out / f'{args.part}.jsonl'
  rows = read(args.runs, args.part) if args.runs else records.read_rows(RESULTS / log.name)
  log.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  by_name = curves(rows, args.part)
  text = table(by_name, args.part)
  log.with_suffix('.log').write_text(text + '\n')
  print(text)
  draw(by_name, args.part, log)


if __name__ == '__main__':
  main()
