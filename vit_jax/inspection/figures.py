"""Static figures of a model: the confusion matrix, attention maps, and the mean attention distance of each head."""

from typing import Any

import numpy as np
from etils import epath
from matplotlib import colors, ticker
from matplotlib.figure import Figure

from vit_jax.drawing import figure as figure_lib
from vit_jax.drawing.figure import AS_IS, FAINT
from vit_jax.inspection import overlay

_NUMBERED = 20  # largest number of classes for which counts are written into the cells
_NAMED = 60  # largest number of classes for which the axes are labelled with class names


def write_confusion(folder: epath.Path, stem: str, summary: dict[str, Any]) -> list[epath.Path]:
  """Writes folder/stem.png; see `confusion_figure`."""
  with figure_lib.style():
    return figure_lib.write(confusion_figure(summary), folder, stem, ['png'])


def confusion_figure(summary: dict[str, Any]) -> Figure:
  """The confusion matrix: rows are labels, columns are predictions, colour is the share of the row.

  `summary` is that of an `Evaluation`.
  """
  counts = np.array(summary['confusion'])
  names = [_short(row['class']) for row in summary['classes']]
  shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  side = float(np.clip(1.6 + 0.42 * len(names), 4.2, 12))
  figure = Figure(figsize=(side + 0.8, side), layout='constrained')
  axes = figure.add_subplot()
  image = axes.imshow(shares, cmap='Blues', norm=colors.PowerNorm(0.5, 0, 1))  # keeps rare mistakes visible
  axes.grid(False)
  axes.spines[:].set_visible(False)
  ticks = range(len(names)) if len(names) <= _NAMED else []
  axes.set_xticks(ticks, [names[i] for i in ticks], rotation=90 if max(map(len, names)) > 2 else 0, **AS_IS)
  axes.set_yticks(ticks, [names[i] for i in ticks], **AS_IS)
  axes.tick_params(length=0, labelsize=8 if len(names) <= 25 else 6)
  axes.set(xlabel='predicted', ylabel='label')
  if len(names) <= _NUMBERED:
    for i, j in zip(*np.nonzero(counts)):
      axes.text(j, i, f'{counts[i, j]:,}', ha='center', va='center', fontsize=7.5,
                color='white' if shares[i, j] > 0.3 else '#1d3557')
  axes.set_title(f'{summary["split"]} of {summary["data"]}: {summary["accuracy"]:.2%} of {summary["examples"]:,} '
                 'correct', **AS_IS)
  figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02, label='share of the label').outline.set_visible(False)
  return figure


def _short(name, most=24):
  return name if len(name) <= most else name[:most - 1] + '…'


def write_attention(folder: epath.Path, stem: str, picture: np.ndarray, last: np.ndarray, rolled: np.ndarray,
                    caption: str) -> list[epath.Path]:
  """Writes folder/stem.png: the picture, then the last layer's attention and attention rollout laid over it."""
  with figure_lib.style():
    shape = picture.shape[1] / picture.shape[0]
    figure = Figure(figsize=(3 * 2.6 * shape + 0.2, 3.1), layout='constrained')
    pixels = np.repeat(picture, 3, axis=2) if picture.shape[2] == 1 else picture
    panels = ((pixels, caption), (overlay.heat(picture, last), 'last layer, mean over heads'),
              (overlay.heat(picture, rolled), 'attention rollout'))
    for axes, (image, words) in zip(figure.subplots(1, 3), panels):
      axes.imshow(image)
      axes.set_title(words, fontsize=9, **AS_IS)
      axes.axis('off')
    return figure_lib.write(figure, folder, stem, ['png'])


def write_distance(folder: epath.Path, stem: str, distance: np.ndarray, even: float) -> list[epath.Path]:
  """Writes folder/stem.png: the mean attention distance [L, H] of each head, in pixels, against the layer."""
  with figure_lib.style():
    return figure_lib.write(distance_figure(distance, even), folder, stem, ['png'])


def distance_figure(distance: np.ndarray, even: float) -> Figure:
  """As Dosovitskiy et al. 2021, fig. 7: a dot a head; `even` is that of a head that attends to all patches alike."""
  figure = Figure(figsize=(6.2, 3.8), layout='constrained')
  axes = figure.add_subplot()
  layers = np.arange(1, len(distance) + 1)
  axes.axhline(even, color=FAINT, ls=':', lw=1.2, label='uniform attention')
  axes.plot(layers, distance.mean(axis=1), color='#31688e', lw=1.4, label='mean over heads')
  axes.plot(np.repeat(layers, distance.shape[1]), distance.ravel(), 'o', ms=5, color='#31688e', alpha=0.6, mew=0,
            label='one head')
  axes.set(xlabel='layer', ylabel='mean attention distance (pixels)', title='Mean attention distance of each head')
  axes.set_ylim(0, 1.08 * max(even, float(distance.max())))
  axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
  axes.legend(fontsize=8)
  return figure
