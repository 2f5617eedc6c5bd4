"""A figure of what a search found, a row for each text: python experiments/zero_shot/found.py FOLDER OUT < FOUND

FOUND is what python -m vit_jax.search RUN FOLDER --text='a red heart' --format=json prints.
"""

import json
import pathlib
import sys

from matplotlib.figure import Figure
from PIL import Image

from vit_jax.drawing import figure as figure_lib


def main(folder, out):
  rows = [json.loads(line) for line in sys.stdin]
  columns = max(len(row['pictures']) for row in rows)
  with figure_lib.style():
    figure = Figure(figsize=(1.1 * columns + 1.6, 1.1 * len(rows)), layout='constrained')
    grid = figure.subplots(len(rows), columns + 1, squeeze=False)
    for axes in grid.flat:
      axes.axis('off')
    for row, (words, *places) in zip(rows, grid, strict=True):
      words.text(1, 0.5, row['text'], ha='right', va='center', transform=words.transAxes, fontsize=9)
      for found, axes in zip(row['pictures'], places):
        axes.imshow(Image.open(pathlib.Path(folder, found['path'])).convert('RGB').resize((64, 64)))
    figure.savefig(out, dpi=60)


if __name__ == '__main__':
  main(*sys.argv[1:])
