"""The validation error of each kind of network at each learning rate: python experiments/cnn_vs_vit/rates.py"""

import json
import pathlib

RUNS = pathlib.Path('runs/cnn_vs_vit')


def main():
  print('kind    rate    validation error with 8,000 images')
  for folder in sorted(RUNS.glob('*-rates')):
    runs = [json.loads(file.read_text()) for file in folder.glob('*/run.json')]
    errors = {run['config']['optimizer']['learning_rate']: run['results']['val']['error'] for run in runs
              if run['status'] == 'finished'}
    for rate, error in sorted(errors.items()):
      best = '  best' if error == min(errors.values()) else ''
      print(f'{folder.name.removesuffix("-rates"):7} {rate:<7g} {error:.4f}{best}')


if __name__ == '__main__':
  main()
