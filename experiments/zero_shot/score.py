"""How often a run names the pictures of an artist it has never seen, among all names: a table, and a figure.

  python experiments/zero_shot/score.py RUN [LANGUAGE..]     default: en

Writes RUN/named.json and RUN/named.png. Beside the model is a control that learns nothing: the name of the nearest
training picture, by the cosine of grey pixels less their mean.
"""

import dataclasses
import json
import pathlib
import sys

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from vit_jax import host, records
from vit_jax.data import pipeline
from vit_jax.drawing import figure as figure_lib
from vit_jax.inspection import pair_model
from vit_jax.training import config as run_config

CANDIDATES = 1_000  # names of the test pictures, beside all names of the data
ROWS, COLUMNS = 4, 6  # of the figure


def open_data(run, language):
  """The run's data with the names in one language; pictures and splits are the same in all."""
  data = run_config.cast(records.read_run(run)['config']).data
  words, at, artist = data.source.partition('@')
  source = f'{words.partition(":")[0]}:{language}{at}{artist}'
  return pipeline.open_data(dataclasses.replace(data, source=source))


def share(hits):
  """A share with its 95% interval (Wilson)."""
  interval = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci(method='wilson')
  return {'n': len(hits), 'share': round(float(hits.mean()), 4), 'ci95': [round(x, 4) for x in interval]}


def worded(value):
  """What `share` returns, or a number, in words."""
  if not isinstance(value, dict):
    return f'{value:,}'
  return f'{value["share"]:.1%} ({value["ci95"][0]:.1%} to {value["ci95"][1]:.1%}; n={value["n"]:,})'


def ranks(scores_NC, labels_N):
  """The place of the right name of each picture, from 0; ties count against it."""
  own_N = scores_NC[np.arange(len(labels_N)), labels_N]
  return np.sum(scores_NC >= own_N[:, None], axis=1) - 1


def nearest_by_pixels(train_NHWC, test_NHWC):
  """The number of the nearest training picture of each test picture."""
  def unit(images):
    flat = images.astype(np.float32).mean(axis=-1).reshape(len(images), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)

  return np.argmax(unit(test_NHWC) @ unit(train_NHWC).T, axis=1)


def table(scores_NC, labels_N, seen_N):
  """The shares among all names, among at most CANDIDATES of the test pictures, and by whether a name was trained on."""
  place_N = ranks(scores_NC, labels_N)
  own = np.unique(labels_N)
  some = np.sort(np.random.default_rng(0).permutation(own)[:CANDIDATES])
  among = np.isin(labels_N, some)
  place_some = ranks(scores_NC[among][:, some], np.searchsorted(some, labels_N[among]))
  out = {'names': scores_NC.shape[1], 'top1': share(place_N < 1), 'top5': share(place_N < 5),
         'fewer_names': len(some), 'top1_fewer': share(place_some < 1), 'top5_fewer': share(place_some < 5),
         'top1_seen': share(place_N[seen_N] < 1)}
  return out | ({'top1_unseen': share(place_N[~seen_N] < 1)} if (~seen_N).any() else {})


def score(run, language, pairs, images_NE):
  """The table of a language, and the scores of each name."""
  data = open_data(run, language)
  texts_CE = pairs.embedder.names(data.class_names, ('{}',))
  labels_N = data.labels('test')
  return table(images_NE @ texts_CE.T, labels_N, data.seen('test')), images_NE @ texts_CE.T


def draw(path, images, right, scores_NC, names):
  """Some pictures with the three likeliest names, right ones in bold."""
  which = np.random.default_rng(1).permutation(len(images))[:ROWS * COLUMNS]
  short = lambda name: name if len(name) < 22 else name[:20] + '..'
  with figure_lib.style():
    figure = Figure(figsize=(1.75 * COLUMNS, 1.75 * ROWS), layout='constrained')
    for axes, i in zip(figure.subplots(ROWS, COLUMNS).flat, which, strict=True):
      axes.imshow(images[i])
      axes.axis('off')
      for line, c in enumerate(np.argsort(scores_NC[i])[::-1][:3]):
        axes.text(0.5, -0.06 - 0.13 * line, short(names[c]), transform=axes.transAxes, ha='center', va='top',
                  fontsize=7, fontweight='bold' if c == right[i] else 'normal')
    figure.savefig(path, dpi=90)


def main(run, *languages):
  host.hush_absent_tpu()
  run, languages = pathlib.Path(run), languages or ('en',)
  pairs, data = pair_model.load(run), open_data(run, languages[0])
  images = data.arrays('test')['image']
  images_NE = pairs.embedder.images(images)
  found = {}
  for language in languages:
    found[language], scores_NC = score(run, language, pairs, images_NE)
    if language == languages[0]:
      draw(run / 'named.png', images, data.labels('test'), scores_NC, data.class_names)
  train = np.stack([batch for part in data.eval_batches('train', 512)
                    for batch in part['image'][part['weight'] > 0]])
  train_labels = data.labels('train')
  found['control, pixels'] = {'top1': share(train_labels[nearest_by_pixels(train, images)] == data.labels('test'))}
  for language, row in found.items():
    print(language, *(f'{name} {worded(value)}' for name, value in row.items()), sep='\n  ')
  (run / 'named.json').write_text(json.dumps(found, indent=2) + '\n')


if __name__ == '__main__':
  main(*sys.argv[1:])
