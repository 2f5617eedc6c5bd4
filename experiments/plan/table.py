"""The table of this folder's README, from the logs of run.sh.

  python experiments/plan/table.py runs/plan       default: the logs in results/
"""

import pathlib
import re
import sys

RESULTS = pathlib.Path(__file__).parent / 'results'
# Column -> the pattern that finds it in a plan's text, of today's program or of the one that wrote the logs.
COLUMNS = {
    'slice': r'^chips +\d+, (.*)$',
    'choice': r'^choice +(.*), [\d,]+ images (?:a|per) step$',
    'images per step': r'^choice .* ([\d,]+) images (?:a|per) step$',
    'GB per chip': r'^memory .*?(?:needs |: )([\d.]+ (?:of|GB per chip,)(?: available)? [\d.]+)',
    'recomputed': r'^recomputed +([\d.]+%)',
    'floor': r'^floor +([\d.e-]+ s)',
    'limit': r'^floor .*limited by (\w+)',
    'MFU at the floor': r'MFU (\d+%) at the floor',
    'compile, wall': r'^compiler +([\d.]+ s)',
}


def main(folder=RESULTS):
  rows = [('log', *COLUMNS, 'processor', 'exit code')]
  for path in sorted(pathlib.Path(folder).glob('*.log')):
    text = path.read_text()
    user, system = map(float, re.search(r'processor time ([\d.]+) s user, ([\d.]+) s system', text).groups())
    code = re.search(r'^exit code (\d+)', text, re.MULTILINE)[1]
    found = [re.findall(pattern, text, re.MULTILINE) for pattern in COLUMNS.values()]
    rows.append((f'[{path.stem}](results/{path.name})', *(cells[-1] if cells else '-' for cells in found),
                 f'{user + system:.0f} s', code))
  rows.insert(1, ('---',) * len(rows[0]))
  print('\n'.join(f'| {" | ".join(row)} |' for row in rows))


if __name__ == '__main__':
  main(*sys.argv[1:])
