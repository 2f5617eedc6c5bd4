"""The validation error of each kind of network at each learning rate: python experiments/cnn_vs_vit/rates.py"""

import collections
import json
import pathlib

RUNS = pathlib.Path('runs/cnn_vs_vit')


def main():
  print('kind    rate    validation error with 2,000 and 32,000 images   mean')
  for folder in sorted(RUNS.glob('*-rates')):
    errors = collections.defaultdict(dict)
    for file in folder.glob('*/run.json'):
      run = json.loads(file.read_text())
      if run['status'] == 'finished':
        config = run['config']
        errors[config['optimizer']['learning_rate']][config['data']['unique_examples']] = run['results']['val']['error']
    for rate, by_size in sorted(errors.items()):
      each = [by_size[size] for size in sorted(by_size)]
      print(f'{folder.name.removesuffix("-rates"):7} {rate:<7g} {"  ".join(f"{error:.4f}" for error in each):48}'
            f'{sum(each) / len(each):.4f}{"" if len(each) == 2 else "  (not finished)"}')


if __name__ == '__main__':
  main()
