"""The table of experiments/speed/README.md.

  python experiments/speed/table.py runs/speed       default: the logs in results/
"""

import pathlib
import re
import sys

RESULTS = pathlib.Path(__file__).parent / 'results'
SPEEDS = r'ours (?P<ours>[\d.]+), [\w ]+ (?P<peer>[\d.]+) images/s; (?P<ratio>[\d.]+)'
PREPARED = r'ours +(?P<ours>[\d,]+) images/s(?s:.*)SIDE +(?P<peer>[\d,]+) images/s; ours is (?P<ratio>[\d.]+)'
SHAPES = ('ViT-S/16', 'ViT-Ti/16', 'ViT, 28 pixels, 1 M parameters', 'Swin-T')
# (what, log, a pattern with the groups ours and, where there is one, peer and ratio; the peer or what was asked for)
ROWS = [
    *((f'training step, {name}, images/s', 'training', rf'{re.escape(name)}, batch \d+: {SPEEDS}', 'transformers')
      for name in SHAPES),
    ('training step, ViT-Ti/16, images/s', 'training', SPEEDS.replace(r'[\w ]+', 'ours in bfloat16'), 'our bfloat16'),
    *(('JPEG to 224 pixels, images/s a core', 'input', PREPARED.replace('SIDE', re.escape(side)), side)
      for side in ('tf.data', 'torchvision')),
    ('a step in a run, ms (ratio of times)', 'host', r'(?P<peer>[\d.]+) ms a bare step, (?P<ours>[\d.]+) ms in a run; '
     r'(?P<ratio>[\d.]+)', 'the bare jitted step'),
    ('the quickstart, from the command to the first step, s', 'host', r'quickstart: (?P<ours>[\d.]+) s',
     'at most 15'),
    ('the 16 runs of a laptop ladder, s', 'ladder', r'sweep: (?P<ours>\d+) s\n.*: (?P<peer>\d+) s;', 'a process a run'),
    ('`main --help`, s', 'host', r'main --help: (?P<ours>[\d.]+) s', 'under 2'),
    ('evaluation from a run folder, 28 pixels, images/s', 'host', r'evaluation: (?P<ours>[\d,]+) images/s', ''),
    ('prediction from Python, 28 pixels, images/s', 'host', r'from Python: (?P<ours>[\d,]+) images/s', ''),
    ('a law of 72 runs with 1,000 refits, s', 'host', r'law: (?P<ours>[\d.]+) s', ''),
    ('a plan of ViT-B/16 on v5e-16, layers scanned: compiling, s', '../../plan/results/b16_batch4096_dots',
     r'compiler +(?P<ours>[\d.]+) s', 'under 60'),
]


def main(folder=RESULTS):
  print('| what | ours | peer | ratio | beside | log |\n|---|---|---|---|---|---|')
  for what, log, pattern, peer in ROWS:
    text = (RESULTS if log.startswith('..') else pathlib.Path(folder)).joinpath(f'{log}.log').read_text()
    found = {'peer': '', 'ratio': '', **re.search(pattern, text).groupdict()}
    if log == 'ladder':  # the shorter, the better
      found['ratio'] = f'{float(found["peer"]) / float(found["ours"]):.2f}'
    print(f'| {what} | {found["ours"]} | {found["peer"]} | {found["ratio"]} | {peer} | [log](results/{log}.log) |')


if __name__ == '__main__':
  main(*sys.argv[1:])
