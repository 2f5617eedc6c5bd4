"""The table of experiments/speed/README.md, from the logs in results/: python experiments/speed/table.py"""

import pathlib
import re

RESULTS = pathlib.Path(__file__).parent / 'results'
SPEEDS = r'ours (?P<ours>[\d.]+), [\w ]+ (?P<peer>[\d.]+) images/s; (?P<ratio>[\d.]+)'
PREPARED = r'ours +(?P<ours>[\d,]+) images/s(?s:.*)SIDE +(?P<peer>[\d,]+) images/s; ours is (?P<ratio>[\d.]+)'
SHAPES = ('ViT-S/16', 'ViT-Ti/16', 'ViT, 28 pixels, 1 M parameters', 'Swin-T')
# (what, log, a pattern with the groups ours, peer and ratio, the peer)
ROWS = [
    *((f'training step, {name}, images/s', 'training', rf'{re.escape(name)}, batch \d+: {SPEEDS}', 'transformers')
      for name in SHAPES),
    ('training step, ViT-Ti/16, images/s', 'training', SPEEDS.replace(r'[\w ]+', 'ours in bfloat16'), 'our bfloat16'),
    *(('JPEG to 224 pixels, images/s a core', 'input', PREPARED.replace('SIDE', re.escape(side)), side)
      for side in ('tf.data', 'torchvision')),
    ('a step in a run, ms', 'host', r'(?P<peer>[\d.]+) ms a bare step, (?P<ours>[\d.]+) ms in a run; '
     r'(?P<ratio>[\d.]+)', 'the bare jitted step'),
]


def main():
  print('| what | ours | peer | ratio | peer is | log |\n|---|---|---|---|---|---|')
  for what, log, pattern, peer in ROWS:
    text = (RESULTS / f'{log}.log').read_text()
    found = re.search(pattern, text)
    print(f'| {what} | {found["ours"]} | {found["peer"]} | {found["ratio"]} | {peer} | [log](results/{log}.log) |')


if __name__ == '__main__':
  main()
