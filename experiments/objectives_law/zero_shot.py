"""A table of the zero-shot error of the runs that can tell names, for vit_jax.law: contrast and caption.

  python experiments/objectives_law/zero_shot.py RUNS OUT.csv

The name of a picture is that of the nearest text (contrast), or the one with the largest log-likelihood per byte
(caption), among the 50 concepts.
"""

import csv
import pathlib
import sys

import numpy as np

from vit_jax import host, records
from vit_jax.data import pipeline
from vit_jax.inspection import captioner
from vit_jax.training import config as run_config

SPLITS = ('val', 'test')


def of_contrast(folder):
  """{split: error}, which the run has logged."""
  rows = records.read_rows(folder / records.METRICS)
  return {split: next(row['zero_shot_error'] for row in rows[::-1] if row['split'] == split) for split in SPLITS}


def of_caption(folder):
  """{split: error} by scoring all names for each picture."""
  data = pipeline.open_data(run_config.cast(records.read_run(folder)['config']).data)
  model = captioner.by_name(captioner.load(folder), data.class_names)
  named = lambda split: model.probabilities(data.arrays(split)['image']).argmax(axis=1)
  return {split: float(np.mean(named(split) != data.labels(split))) for split in SPLITS}


def main(place, out):
  host.hush_absent_tpu()
  rows = []
  for path in sorted(pathlib.Path(place).glob(f'*/{records.RUN}')):
    record, folder = records.read_run(path.parent), path.parent
    objective = record['config'].get('objective')
    if objective in ('contrast', 'caption') and record['status'] == 'finished':
      last = records.read_rows(folder / records.METRICS)[-1]
      errors = (of_contrast if objective == 'contrast' else of_caption)(folder)
      rows.append({'run': folder.name, 'objective': objective, 'width': record['config']['model']['width'],
                   'flops': last['flops']} | {f'{split}_zero_shot_error': error for split, error in errors.items()})
      print(*rows[-1].values(), flush=True)
  with open(out, 'w', newline='') as file:
    table = csv.DictWriter(file, rows[0])
    table.writeheader()
    table.writerows(rows)


if __name__ == '__main__':
  main(*sys.argv[1:])
