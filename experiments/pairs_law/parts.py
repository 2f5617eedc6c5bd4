"""Parts of the icons, as sources of data: by how many artists they are, and how many pictures a caption has.

  --config.data.source=experiments.pairs_law.parts:artists_800_8_0     800 pictures by 8 artists, draw 0
  --config.data.source=experiments.pairs_law.parts:captions_16_0       16 pictures of each caption, draw 0

Of the 149 artists a quarter are `test`; nothing of theirs is trained on. The captions are the 100 that are drawn most.
A draw is a choice of artists and of their pictures, or of the pictures of each caption.
"""

import collections
import functools
import json

import numpy as np

from vit_jax.data import prepared_pairs
from vit_jax.data.array_sources import ArraySource

CAPTIONS = 100
UNSEEN = 0.25  # of the artists
TEST = 1_500  # pictures at most
LEAST = 90  # pictures of an artist who may be drawn


def __getattr__(name):
  """The source of that name."""
  kind, *numbers = name.split('_')
  if kind not in _KINDS or not all(map(str.isdigit, numbers)):
    raise AttributeError(name)

  def opened(config):
    labels, artists, images, names = _icons(config.data_dir)
    unseen = _unseen(artists)
    test = np.random.default_rng(0).permutation(np.flatnonzero(unseen))[:TEST]
    return {split: _source(images, labels, names, which) for split, which in {
        'train': _KINDS[kind](labels, np.where(unseen, '', artists), *map(int, numbers)), 'test': test}.items()}

  return opened


@functools.cache
def _icons(data_dir):
  """(label [N], artist [N], picture [N, ..], the names of the labels) of the pictures of the captions drawn most."""
  folder = prepared_pairs.folder_of('icons', data_dir)
  rows = [json.loads(line) for line in (folder / 'table.jsonl').read_text().split('\n') if line]
  captions = np.array([row['captions']['en'][0] for row in rows])
  names = tuple(name for name, _ in collections.Counter(captions.tolist()).most_common(CAPTIONS))
  kept = np.flatnonzero(np.isin(captions, names))
  number = {name: label for label, name in enumerate(names)}
  labels = np.array([number[name] for name in captions[kept]], np.int32)
  images = np.load(folder / 'pictures.npy', mmap_mode='r')[kept]
  return labels, np.array([rows[i]['artist'] for i in kept]), images, names


def _unseen(artists):
  """Which pictures are by artists who are not trained on."""
  every = np.unique(artists)
  held = np.random.default_rng(0).permutation(every)[:round(UNSEEN * len(every))]
  return np.isin(artists, held)


def _of_artists(labels, artists, pictures, count, draw):
  """As many pictures of each of some artists, or all of one who has fewer."""
  many = sorted(name for name, n in collections.Counter(artists.tolist()).items() if n >= LEAST and name)
  rng = np.random.default_rng((draw, pictures))
  chosen = rng.permutation(many)[:count]
  return np.concatenate([rng.permutation(np.flatnonzero(artists == name))[:pictures // count] for name in chosen])


def _of_captions(labels, artists, each, draw):
  """As many pictures of each caption."""
  order = np.random.default_rng(draw).permutation(np.flatnonzero(artists != ''))
  return np.concatenate([order[labels[order] == label][:each] for label in range(CAPTIONS)])


def _source(images, labels, names, which):
  which = np.sort(which)
  return ArraySource('icons', names, images[which], labels[which], [(names[i],) for i in labels[which]])


_KINDS = {'artists': _of_artists, 'captions': _of_captions}
