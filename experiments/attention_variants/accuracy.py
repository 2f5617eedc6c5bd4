"""What each kind of attention reached on the test images.

  python experiments/attention_variants/accuracy.py runs/attention
"""

import json
import pathlib
import statistics
import sys


def main(runs_folder):
  print('attention  runs  test accuracy, each            mean    standard error')
  for folder in sorted(pathlib.Path(runs_folder).iterdir()):
    runs = [json.loads(file.read_text()) for file in sorted(folder.glob('*/run.json'))]
    each = [run['results']['test']['accuracy'] for run in runs if run['status'] == 'finished']
    print(f'{folder.name:9}  {len(each):4}  {"  ".join(f"{accuracy:.2%}" for accuracy in each):29}  '
          f'{statistics.mean(each):.2%}  {statistics.stdev(each) / len(each) ** 0.5:.2%}')


if __name__ == '__main__':
  main(*sys.argv[1:])
