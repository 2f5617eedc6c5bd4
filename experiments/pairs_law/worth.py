"""What a language, an artist or a duplicate caption is worth: runs of one size that differ in their data.

  python -m vit_jax.sweep --sweep=experiments/pairs_law/worth.py:fit_artists --workdir=DIR
  python experiments/pairs_law/worth.py DIR       writes DIR/artists.csv, a table for vit_jax.law

`fit`: what the laws are fitted to. `held_out`: more artists, pictures of a caption, or languages than any of these.
Pictures are moved a little at random, as small parts are seen up to 160 times.
"""

import csv
import pathlib
import sys

from vit_jax import records, sweeps

RECIPE = 'experiments/pairs_law/recipe.py'
PARTS = 'experiments.pairs_law.parts'
WIDTH = 32
LANGUAGES = ('en', 'de', 'es', 'fr', 'it', 'pt', 'nl', 'pl')
COLUMNS = {'artists': ('pictures', 'artists'), 'captions': ('each', 'steps'), 'languages': ('languages', 'steps')}
CELLS = {
    'fit': {'artists': [(400, 4), (400, 8), (400, 16), (800, 8), (800, 16)],
            'captions': [(4, 512), (8, 512), (16, 512), (32, 512), (8, 1024), (16, 1024), (32, 1024)],
            'languages': [(1, 512), (2, 512), (4, 512), (1, 1024), (2, 1024), (4, 1024)]},
    'held_out': {'artists': [(400, 32), (800, 32)], 'captions': [(64, 512), (64, 1024)],
                 'languages': [(8, 512), (8, 1024)]}}
DRAWS = {'artists': 3, 'captions': 2, 'languages': 2}
ARGS = tuple(f'{part}_{kind}' for part in CELLS for kind in COLUMNS)


def base(steps):
  """Both towers of one width, as in sweep.py."""
  tower = {'width': WIDTH, 'mlp_dim': 4 * WIDTH, 'num_heads': WIDTH // 8}
  return {f'{room}.{name}': value for room in ('model', 'loss.text') for name, value in tower.items()} | {
      'optimizer.learning_rate': 0.2 / WIDTH, 'train.steps': steps, 'data.val_examples': 0,
      'data.augment.crop': 'simple', 'data.augment.crop_padding': 3, 'system.log_every': steps // 4}


def run(kind, first, second, draw):
  """The overrides of a run."""
  if kind == 'languages':
    return base(second) | {'data.source': f'emoji:{",".join(LANGUAGES[:first])}@noto', 'data.image_size': (32, 32),
                           'data.text.vocab_size': 2_048, 'data.text.length': 12, 'seed': draw}
  steps, numbers = (512, (first, second)) if kind == 'artists' else (second, (first,))
  return base(steps) | {'data.source': f'{PARTS}:{"_".join(map(str, (kind, *numbers, draw)))}', 'seed': draw}


def get_sweep(part):
  part, _, kind = part.rpartition('_')
  return sweeps.Sweep(RECIPE, [run(kind, *cell, draw) for cell in CELLS[part][kind] for draw in range(DRAWS[kind])])


def row_of(folder):
  """(kind, the row of a table) of a finished run."""
  config, rows = records.read_run(folder)['config'], records.read_rows(folder / records.METRICS)
  test, source = next(row for row in rows[::-1] if row['split'] == 'test'), config['data']['source']
  if not source.startswith(PARTS):  # emoji have no classes: the share whose own name is not among the ten nearest
    return 'languages', {'run': folder.name, 'languages': source.count(',') + 1, 'steps': config['train']['steps'],
                         'error': 1 - test['image_to_text@10']}
  kind, *numbers, _ = source.partition(':')[2].split('_')
  numbers = [*map(int, numbers), config['train']['steps']][:2]
  return kind, {'run': folder.name, **dict(zip(COLUMNS[kind], numbers)), 'error': test['zero_shot_error']}


def main(place):
  place, tables = pathlib.Path(place), {}
  for path in sorted(place.glob(f'*/{records.RUN}')):
    if records.read_run(path.parent)['status'] == 'finished':
      kind, row = row_of(path.parent)
      tables.setdefault(kind, []).append(row)
  for kind, rows in tables.items():
    with (place / f'{kind}.csv').open('w', newline='') as file:
      out = csv.DictWriter(file, rows[0])
      out.writeheader()
      out.writerows(rows)
    print(f'{place}/{kind}.csv: {len(rows)} runs')


if __name__ == '__main__':
  main(*sys.argv[1:])
