"""Writes the pictures of a prepared set as files: python experiments/zero_shot/write_set.py DATA_DIR OUT [NAME]"""

import json
import pathlib
import re
import sys

import numpy as np
from PIL import Image


def main(data_dir, out, name='stamps'):
  folder, out = pathlib.Path(data_dir, name), pathlib.Path(out)
  out.mkdir(parents=True, exist_ok=True)
  images = np.load(folder / 'pictures.npy', mmap_mode='r')
  for i, line in enumerate((folder / 'table.jsonl').read_text().splitlines()):
    text = re.sub(r'\W+', '_', json.loads(line)['captions']['en'][0].lower())[:40].strip('_')
    Image.fromarray(images[i]).save(out / f'{i:04}_{text}.png')


if __name__ == '__main__':
  main(*sys.argv[1:])
