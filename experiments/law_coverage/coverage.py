"""Do the 95% intervals hold the truth 95% of the time?

  python experiments/law_coverage/coverage.py --draws_file=runs/law_coverage.jsonl

Each draw makes the runs of a world (worlds.py), fits them as `vit_jax.law` does, and asks questions (questions.py) of
which the truth is known. It is written as a line to the file, and a draw that is there is not made again by the same
code: the command continues where it was stopped. --part=0/2 and --part=1/2 are two processes that share the work and
the file. --only takes the worlds with these words in their names, --first the draws from that number on. The table at
the end is of all draws in the file.

Two hundred draws tell a share of 95% to within 3% only (two standard errors). So the width is shown as well: the median
interval (in logs) over 3.92 standard deviations of the estimates' errors over the draws, 1 for a normal estimate whose
interval is as wide as it should be.
"""

import argparse
import hashlib
import json
import pathlib
import time

import numpy as np
import questions
from worlds import WORLDS

from vit_jax import provenance, records, scaling

LOW, HIGH = 0.90, 0.98  # the claim
MISFIT_LOW, MISFIT_RED = 0.80, 0.90  # of misfits: covered, or else warned of


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('--draws', type=int, default=200)
  parser.add_argument('--first', type=int, default=0)
  parser.add_argument('--draws_file', type=pathlib.Path, required=True)
  parser.add_argument('--part', default='0/1')
  parser.add_argument('--only', default='')
  arguments = parser.parse_args()
  arguments.draws_file.parent.mkdir(parents=True, exist_ok=True)
  part, parts = map(int, arguments.part.split('/'))
  code, worlds = code_digest(), [world for world in WORLDS if arguments.only in world.name]
  done = {(row['world'], row['draw']) for row in read(arguments.draws_file) if row['code'] == code}
  with arguments.draws_file.open('a', buffering=1) as file:
    for seed in range(arguments.first + part, arguments.draws, parts):
      for world in worlds:
        if (world.name, seed) not in done:
          start = time.process_time()
          row = {'world': world.name, 'draw': seed, 'code': code, **questions.ask(world, seed)}
          file.write(json.dumps(row | {'seconds': time.process_time() - start}) + '\n')
  show(read(arguments.draws_file))


def code_digest() -> str:
  """8 hex digits of the sources that fit laws, ask and make worlds."""
  files = [*pathlib.Path(scaling.__file__).parent.glob('*.py'), *pathlib.Path(__file__).parent.glob('*.py')]
  digests = [provenance.of_source(path.read_text()) for path in sorted(files) if path.name != 'coverage.py']
  return hashlib.sha256(' '.join(digests).encode()).hexdigest()[:8]


def read(path) -> list[dict]:
  return records.read_rows(path) if path.exists() else []


def show(rows: list[dict]) -> None:
  """Prints the table of each world, of the newest line of each draw, and which cells miss the claim."""
  newest = {(row['world'], row['draw']): row for row in rows}
  cells = []
  for world in WORLDS:
    draws = {draw: row for (name, draw), row in newest.items() if name == world.name}
    if draws:
      like = {draw: row for (name, draw), row in newest.items() if name == world.like}
      cells += show_world(world, draws, like)
  print('world: lowest, mean and highest share over its quantities')
  for world in dict.fromkeys(world for world, *_ in cells):
    shares = [100 * share for name, _, share, _ in cells if name == world]
    print(f'  {world}: {min(shares):.1f}%, {np.mean(shares):.1f}%, {max(shares):.1f}%')
  right = sum(not verdict for *_, verdict in cells)
  seconds = sum(row['seconds'] for row in newest.values())
  print(f'{right} of {len(cells)} cells are as claimed; {len(newest)} draws, {seconds / 60:.0f} CPU minutes')
  for world, name, share, verdict in cells:
    if verdict:
      print(f'  {verdict}: {100 * share:.1f}%, {name}, {world}')


def show_world(world, draws, like):
  """Prints the cells of a world; returns them as (world, quantity, share, what is wrong)."""
  code = ', '.join(sorted({row['code'] for row in draws.values()}))
  red = np.mean([row['red'] for row in draws.values()])
  print(f'{world.name} (sigma {100 * world.sigma:g}%, {world.form}, {world.objective}, {world.refits} refits): '
        f'{len(draws)} draws, calibrated light red in {100 * red:.1f}%, code {code}')
  if world.saves == 1.0:
    better = np.mean([row['p'] < 0.05 for row in draws.values() if 'p' in row])
    print(f'  "the second needs less" with p < 0.05: {100 * better:.1f}%')
  cells = []
  for name in dict.fromkeys(name for row in draws.values() for name in row['answers']):
    some = {draw: row['answers'][name] for draw, row in draws.items() if name in row['answers']}
    target, value, low, high = np.array(list(some.values()), float).T
    share = float(np.mean((low <= target) & (target <= high)))
    if world.misfit:
      verdict = '' if share >= MISFIT_LOW or red >= MISFIT_RED else 'too low, and no light'
    else:
      verdict = 'too low' if share < LOW else 'too high' if share > HIGH else ''
    cells.append((world.name, name, share, verdict))
    print(f'  {name}: {100 * share:.1f}%{_width(target, value, low, high)}{_beside(name, some, like)}'
          f'{f", of {len(some)}" if len(some) < len(draws) else ""}{f"  <- {verdict}" if verdict else ""}')
  print(flush=True)
  return cells


def _width(target, value, low, high):
  with np.errstate(all='ignore'):
    width, error = np.median(np.abs(np.log(high / low))), np.std(np.log(value / target), ddof=1)
    ratio = width / 3.92 / error
  return f', width {ratio:.2f}' if np.isfinite(ratio) else ''


def _beside(name, some, like):
  """How wide the intervals are beside those of the same draws of another world."""
  pairs = [(np.subtract(*some[draw][:1:-1]), np.subtract(*like[draw]['answers'][name][:1:-1])) for draw in some
           if draw in like and name in like[draw]['answers']]
  pairs = [(a, b) for a, b in pairs if b > 0 and np.isfinite(a)]
  return f', {np.median([a / b for a, b in pairs]):.2f} times as wide as clean' if pairs else ''


if __name__ == '__main__':
  main()
