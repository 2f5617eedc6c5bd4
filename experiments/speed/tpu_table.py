"""The table of compiled TPU programs in experiments/speed/README.md, from the logs of tpu.sh.

  python experiments/speed/tpu_table.py runs/tpu       default: the logs in results/
"""

import pathlib
import re
import sys

RESULTS = pathlib.Path(__file__).parent / 'results'
COLUMNS = {
    'moved GB': r'moved ([\d.]+) GB', 'peak GB': r'peak ([\d.]+)', 'compute ms': r'compute ([\d.]+) ms',
    'memory ms': r'hbm ([\d.]+) ms', 'sent MB': r'sent (\d+) MB', 'at least': r'least (\d+) MB',
    'limit': r'limit (\w+)', 'MFU at the floor': r'MFU (\d+%)', 'attention': r'attention (\w+)',
    'layers': r'layers (.*?) micro', 'slices': r'micro-batches (\d+)',
    'compile, s of processor time': r'compile (\d+) s'}


def main(folder=RESULTS):
  rows = [('program', *COLUMNS)]
  for path in sorted(pathlib.Path(folder).glob('movers_*.log')):
    program, _, figures = path.read_text().partition('\n')[0].partition(': ')
    found = [re.search(pattern, figures) for pattern in COLUMNS.values()]
    rows.append((f'[{program}](results/{path.name})', *(match[1] if match else '' for match in found)))
  rows.insert(1, ('---',) * len(rows[0]))
  print('\n'.join(f'| {" | ".join(row)} |' for row in rows))


if __name__ == '__main__':
  main(*sys.argv[1:])
